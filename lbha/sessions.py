"""The sessions of haproxy's workers, listed and ended on its sockets, paced."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lbha.errors import EngineError
from lbha.haproxy_socket import Socket
from lbha.pause import Pause

ASK_SECONDS = 3.0

_BATCH_SECONDS = 0.05
"""Sessions are listed anew for each batch: haproxy gives a pointer to the next session within ms (measured)."""

_LISTING_SHARE = 0.2
"""Of the time, at most, goes into listings: 9,500 sessions are 2.6 MB and 30 ms (measured)."""

_AT_ONCE = 200
"""Commands in one question: haproxy reads 16 KiB (tune.bufsize)."""

_SESSION = re.compile(r"^(0x[0-9a-f]+): proto=\S+ src=(\S+) fe=(\S+) be=(\S+) srv=(\S+) ", re.MULTILINE)
_WORKER = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Session:
    """A client's stream: haproxy's pointer to it, the client's `address:port`, and the server that it is on."""

    pointer: str
    client: str
    frontend: str
    backend: str
    server: str


def sessions(socket: Socket, prefix: str = "") -> tuple[Session, ...]:
    """The clients' sessions, without the questions to haproxy itself. `prefix`: `@!PID ` on a master socket.

    Raises EngineError.
    """
    answer = socket.ask(f"{prefix}show sess", ASK_SECONDS)
    # One by one: `findall` would keep every other thread from running until it is through.
    return tuple(
        Session(*found.groups())
        for found in _SESSION.finditer(answer)
        if found.group(3) not in ("GLOBAL", "MASTER")
    )


def workers(master: Socket) -> tuple[int, ...]:
    """The process ids of haproxy's workers, those of earlier configurations too. Raises EngineError."""
    return tuple(int(pid) for pid in _WORKER.findall(master.ask("show proc", ASK_SECONDS)))


def end(
    socket: Socket,
    prefix: str,
    choose: Callable[[tuple[Session, ...]], Sequence[Session]],
    rate: int,
    pause: Pause,
) -> int:
    """End the sessions that `choose` finds in a listing, first things first, at most `rate` a second; how many.

    Raises EngineError.
    """
    ended, interval = 0, _BATCH_SECONDS
    while True:
        start = time.monotonic()
        found = choose(sessions(socket, prefix))
        interval = max(_BATCH_SECONDS, (time.monotonic() - start) / _LISTING_SHARE)
        chosen = found[: max(1, round(rate * interval))]
        # Few questions, so that none of them is old when it is carried out.
        for first in range(0, len(chosen), _AT_ONCE):
            some = chosen[first : first + _AT_ONCE]
            said = socket.ask(
                ";".join(f"{prefix}shutdown session {each.pointer}" for each in some), ASK_SECONDS
            )
            refused = [line for line in said.splitlines() if line and not line.startswith("No such session")]
            if refused:
                raise EngineError(f"haproxy does not end a session: {refused[0]}")
            ended += len(some)
        if len(chosen) == len(found):
            return ended
        if not pause.wait(max(len(chosen) / rate - (time.monotonic() - start), 0.001)):
            return ended
