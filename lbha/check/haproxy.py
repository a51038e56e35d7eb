"""Is this node's haproxy able to serve? One question on its admin socket, one pure judgement."""

from __future__ import annotations

import _socket
import time

from lbha.check.watch import Bad, Watch, told

_ASKED = "show info;show stat -1 1 -1"
"""All about the process, then one line a frontend (type 1) of every proxy; on one connection."""

_MAX_ANSWER = 4 << 20


class _Stopping(Bad):
    """The haproxy that answered is on its way out."""


def haproxy(path: str, watch: Watch) -> str:
    """Good when the haproxy at the admin socket `path` can serve clients. Raises Bad."""
    try:
        return serving(_ask(path, watch))
    except _Stopping as stopping:
        # A worker that a reload has just replaced; within ms `path` leads to the new one (measured: 5 of
        # 55 000 questions during 12 reloads). One that stops for good refuses the second question.
        watch.note(f"{stopping}; asking once more")
        time.sleep(0.02)
        return serving(_ask(path, watch))


def _ask(path: str, watch: Watch) -> bytes:
    """The whole answer of haproxy. Raises Bad when there is none."""
    watch.start(f'asking "{_ASKED}" on {path}')
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    answer = b""
    try:
        while True:
            connection.settimeout(watch.left())
            try:
                connection.connect(path)
                break
            except BlockingIOError:  # a full backlog; connect(2) would wait for ever
                watch.doing = f"before the full backlog of {path} (frozen?)"
                time.sleep(0.01)
        watch.note("connected")
        watch.doing = f"without an answer on {path} (frozen?)"
        connection.settimeout(watch.left())
        connection.sendall(_ASKED.encode() + b"\n")
        while len(answer) < _MAX_ANSWER:
            connection.settimeout(watch.left())
            part = connection.recv(65536)
            if not part:
                break
            answer += part
            watch.doing = f"without the end of the answer on {path} (is it the admin socket?)"
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Bad(f"{told(error)} on {path}: haproxy is down, or listens elsewhere") from None
    except PermissionError:
        raise Bad(f"{path} may not be opened; run as root") from None
    except (ConnectionResetError, BrokenPipeError):
        raise Bad(f"the connection to {path} broke (is haproxy just ending?)") from None
    finally:
        connection.close()
    watch.note(f"answered, {len(answer)} bytes")
    return answer


def serving(answer: bytes) -> str:
    """Judge haproxy's answer: the reason why it can serve. Raises Bad for everything else. Pure.

    Its servers are haproxy's own business: if every backend is sick, moving the VIP would help nobody. The
    frontends named `lbha.…` (metrics) carry no client.
    """
    if not answer:
        raise Bad("closed the connection without an answer")
    text = answer.decode("ascii", "replace")
    if not text.startswith("Name: HAProxy\n") or not text.endswith("\n\n"):
        raise Bad("what answers is no haproxy, or it broke off")
    about, _, table = text.partition("\n\n")
    facts = dict(row.partition(": ")[::2] for row in about.split("\n"))
    version = facts.get("Version", "").partition("-")[0]
    if facts.get("Stopping") != "0":
        raise _Stopping(f"haproxy {version} is stopping")
    rows = [row.split(",") for row in table.split("\n") if row]
    if not rows or not rows[0][0].startswith("# pxname") or "status" not in rows[0]:
        raise Bad(f"haproxy {version} answers, but not with its frontends")
    column = rows[0].index("status")
    states = {row[0]: row[column] for row in rows[1:] if len(row) > column and not row[0].startswith("lbha.")}
    if not states:
        raise Bad(f"haproxy {version} has no frontend")
    closed = [f"{name} {state}" for name, state in states.items() if state != "OPEN"]
    if closed:
        raise Bad(f"haproxy {version} has frontends that are not open: {', '.join(closed)}")
    return f"haproxy {version} answers, {len(states)} frontend{'s' * (len(states) > 1)} open"
