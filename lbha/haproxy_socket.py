"""One question to one of haproxy's sockets (admin or master), and its answer, in bounded time."""

from __future__ import annotations

import socket
from pathlib import Path

from lbha.engine import Deadline
from lbha.errors import EngineError


class NotListening(EngineError):
    """Nobody listens on the socket: no haproxy, or its master is executing itself anew."""


class Socket:
    """A UNIX socket of haproxy. Each question is a connection of its own."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def ask(self, command: str, timeout: float = 3.0) -> str:
        """What haproxy answers, read to its end.

        Raises NotListening, or EngineError when no complete answer came within `timeout` s.
        """
        deadline = Deadline(timeout)
        answer = bytearray()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                self._connect(connection, deadline)
                connection.settimeout(max(deadline.left, 0.001))
                connection.sendall(command.encode() + b"\n")
                # The master socket of 2.6 does not close by itself.
                connection.shutdown(socket.SHUT_WR)
                while True:
                    connection.settimeout(max(deadline.left, 0.001))
                    chunk = connection.recv(65536)
                    if not chunk:
                        return answer.decode("utf-8", "replace")
                    answer += chunk
                    if not deadline.left:
                        raise TimeoutError
            except (FileNotFoundError, ConnectionError) as error:
                raise NotListening(f"{self.path}: {error.strerror or error}") from None
            except TimeoutError:
                raise EngineError(
                    f"haproxy did not answer `{command}` on {self.path} within {timeout:g} s; "
                    "it may be frozen or overloaded: look at it, restart it, then try again"
                ) from None
            except OSError as error:
                raise EngineError(f"{self.path}: {error.strerror or error}") from None

    def _connect(self, connection: socket.socket, deadline: Deadline) -> None:
        while True:
            connection.settimeout(max(deadline.left, 0.001))
            try:
                connection.connect(self.path)
            except BlockingIOError:  # a full backlog: UNIX sockets do not wait for room
                if not deadline.wait(0.02):
                    raise TimeoutError from None
            else:
                return


def fields(answer: str) -> dict[str, str]:
    """`Name: value` lines, as of `show info`. Names in lower case: haproxy writes both kinds."""
    found: dict[str, str] = {}
    for line in answer.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            found[name.strip().lower()] = value.strip()
    return found
