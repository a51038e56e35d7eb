"""systemd's notification protocol (sd_notify(3)): ready, reloading, status, watchdog. Else nothing."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Speaks to NOTIFY_SOCKET, when there is one."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog = int(microseconds) / 2e6 if microseconds.isdigit() else None
        """Seconds between two signs of life, half of what systemd waits; None without a watchdog."""
        self._alive = 0.0

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """SIGHUP was heard."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """SIGTERM was heard."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """A sign of life, when one is due."""
        now = time.monotonic()
        if self.watchdog is not None and now - self._alive >= self.watchdog:
            self._alive = now
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
                link.sendto(text.encode(), self._address)
        except OSError:
            pass  # systemd went away, or never was: no reason to fail
