"""The log goes to systemd's journal with fields of its own, where the journal reads our stderr anyway.

    journalctl LBHA_EVENT=vip-gained
    journalctl -u lbha-agent -o json --output-fields=MESSAGE,LBHA_EVENT,LBHA_CAUSE,LBHA_NODE

The protocol: one datagram a message, a line for each field (systemd.io/JOURNAL_NATIVE_PROTOCOL).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Python's levels as syslog's; below them 7."""


def set_up(fields: Mapping[str, str]) -> None:
    """Send the log of this process to the journal, `fields` with each message; elsewhere leave it as it is."""
    if _stderr_is_the_journal():
        logging.getLogger().handlers = [Journal(SOCKET, fields)]


def _stderr_is_the_journal() -> bool:
    """JOURNAL_STREAM names device and inode of the stream (systemd.exec(5))."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Journal(logging.Handler):
    """A logging handler. A record's `event` and `cause` become LBHA_EVENT and LBHA_CAUSE."""

    def __init__(self, path: str, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._path, self._fields = path, dict(fields)
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """A message that the journal does not take goes to stderr."""
        try:
            fields = {
                "MESSAGE": self.format(record),
                "PRIORITY": str(next((to for level, to in _PRIORITIES if record.levelno >= level), 7)),
                "SYSLOG_IDENTIFIER": "lbha",
                **self._fields,
            }
            for name in ("event", "cause"):
                if value := getattr(record, name, None):
                    fields[f"LBHA_{name.upper()}"] = str(value)
            self._link.sendto(datagram(fields), self._path)
        except OSError:
            print(self.format(record), file=sys.stderr)

    def close(self) -> None:
        self._link.close()
        super().close()


def datagram(fields: Mapping[str, str]) -> bytes:
    """A value of several lines is preceded by its length, so that none can pose as another field."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
