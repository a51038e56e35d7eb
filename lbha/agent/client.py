"""One question to the agent on this node, over its UNIX socket. Synchronous, and quick to start.

HTTP/1.0 by hand: the agent closes after its answer, and http.client would take 10 ms more to import (measured).
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lbha.errors import ConfigError, LbhaError
from lbha.facts import Status

SOCKET = "agent.sock"
TIMEOUT = 3.0

_T = TypeVar("_T")


def ask(
    run_dir: str | Path,
    method: str,
    path: str,
    body: object = None,
    type: type[_T] = Status,  # type: ignore[assignment]
    timeout: float = TIMEOUT,
) -> _T:
    """The agent's answer as `type`; `body` goes as JSON.

    Raises LbhaError in one line when no agent runs, none answers within `timeout` s, or it refuses (ConfigError
    when the request is a mistake).
    """
    where = Path(run_dir) / SOCKET
    content = b"" if body is None else msgspec.json.encode(body)
    head = f"{method} {path} HTTP/1.0\r\nContent-Length: {len(content)}\r\n\r\n"
    try:
        status, answer = _exchange(str(where), head.encode() + content, timeout)
        if status == 200:
            return msgspec.json.decode(answer, type=type)
        refusal: Any = msgspec.json.decode(answer)["error"]
    except (FileNotFoundError, ConnectionRefusedError):
        raise LbhaError(f"no agent runs on this node ({where}); start it: systemctl start lbha-agent") from None
    except PermissionError:
        raise LbhaError(f"{where}: permission denied; run it as root") from None
    except TimeoutError:
        raise LbhaError(f"the agent did not answer within {timeout:g} s ({where})") from None
    except ConnectionError:
        raise LbhaError(f"the agent closed the connection ({where}); it is busy or ending, try again") from None
    except OSError as error:
        raise LbhaError(f"{where}: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError):  # msgspec.DecodeError is a ValueError
        raise LbhaError(f"the agent's answer makes no sense ({where}); is it another version?") from None
    raise (ConfigError if status == 400 else LbhaError)(str(refusal))


def _exchange(where: str, request: bytes, timeout: float) -> tuple[int, bytes]:
    """Send, and read to the end: the status and the whole body. Raises OSError, ValueError."""
    end = time.monotonic() + timeout
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        _connect(connection, where, end)
        connection.sendall(request)
        while chunk := connection.recv(1 << 16):
            answer += chunk
            connection.settimeout(max(0.001, end - time.monotonic()))
    if not answer:
        raise ConnectionResetError
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status, *headers = head.decode("ascii").split("\r\n")
    sizes = [line.partition(":")[2] for line in headers if line.lower().startswith("content-length:")]
    if sizes and len(body) != int(sizes[0]):
        raise ValueError("a truncated answer")
    return int(status.split()[1]), body


def _connect(connection: socket.socket, where: str, end: float) -> None:
    while True:
        try:
            connection.connect(where)
        except BlockingIOError:  # a full backlog: UNIX sockets do not wait for room
            if time.monotonic() >= end:
                raise TimeoutError from None
            time.sleep(0.02)
        else:
            return
