"""Asking this node's agent over its UNIX socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import msgspec

from lbha.errors import ConfigError, LbhaError
from lbha.facts import Status

SOCKET = "agent.sock"
TIMEOUT = 5.0
"""Seconds for the whole answer."""


def ask(run_dir: str | Path, method: str, path: str, body: object = None, type: Any = Status) -> Any:
    """The agent's answer as `type`. LbhaError when it refuses or does not answer; ConfigError for misuse."""
    name = Path(run_dir) / SOCKET
    connection = _Connection("localhost", timeout=TIMEOUT)
    connection.path = str(name)
    try:
        data = None if body is None else msgspec.json.encode(body)
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = connection.getresponse()
        content = answer.read()
    except (FileNotFoundError, ConnectionRefusedError):
        raise LbhaError(f"no agent answers at {name}; is it running? systemctl status lbha-agent") from None
    except PermissionError:
        raise LbhaError(f"{name}: permission denied; ask the agent as root") from None
    except (OSError, http.client.HTTPException) as error:
        raise LbhaError(f"the agent does not answer at {name}: {error}") from None
    finally:
        connection.close()
    try:
        if answer.status >= 300:
            told = msgspec.json.decode(content, type=dict[str, str])["error"]
            raise (ConfigError if answer.status == 400 else LbhaError)(told)
        return msgspec.json.decode(content, type=type)
    except (msgspec.MsgspecError, KeyError):
        raise LbhaError(
            f"the agent answered {answer.status} and something unreadable to {method} {path}"
        ) from None


class _Connection(http.client.HTTPConnection):
    path = ""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)
