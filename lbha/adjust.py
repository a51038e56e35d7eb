"""Saying to a running haproxy what `lbha.live` found, and reading back whether it is so."""

from __future__ import annotations

from lbha import live
from lbha.engine import Deadline
from lbha.haproxy_socket import Socket
from lbha.live import Overrides, Server

PATIENCE = 1.0
"""Seconds to wait for the first good check of a new server where an old one may only leave after it."""


def servers(socket: Socket, prefix: str = "") -> tuple[Server, ...]:
    """haproxy's servers, as they are. `prefix`: `@!PID ` on a master socket. EngineError when it is silent."""
    return live.parse(socket.ask(f"{prefix}show servers state"))


def converge(admin: Socket, text: str, overrides: Overrides) -> bool:
    """Make the servers of a haproxy that runs the structure of `text` those of `text`.

    False when that takes a reload: no slot is free, or haproxy answers or does something unexpected. Where no
    new server passes its check within PATIENCE, the old ones serve on. EngineError when haproxy is silent.
    """
    deadline = Deadline(PATIENCE)
    said: set[str] = set()
    while True:
        actual = servers(admin)
        wanted = live.commands(text, actual, overrides)
        if wanted is None:
            return False
        if not wanted and (not live.waiting(text, actual) or not deadline.wait(0.02)):
            return True
        for command in wanted:
            # Said once, and what is read back is as if it had not been: a surprise.
            if str(command) in said or not command.accepted(admin.ask(str(command))):
                return False
            said.add(str(command))
