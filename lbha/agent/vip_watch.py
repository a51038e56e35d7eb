"""Does this node hold the VIP? The kernel is the truth; netlink says when to ask it again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from lbha.check.holder import holds

_GROUPS = 0x10 | 0x100  # linux/rtnetlink.h: RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR


class VipWatch:
    """`held` is the truth of the last look; `since` when it changed (seconds since the epoch).

    The netlink socket is only a bell: whatever it says, or loses when its buffer overflows, the kernel itself
    is asked (10 µs), and at each `look` besides.
    """

    def __init__(self, vip: str, changed: Callable[[], None]) -> None:
        self._vip, self._changed = vip, changed
        self.held = holds(vip)
        self.since = time.time()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        ) as bell:
            bell.bind((0, _GROUPS))
            loop.add_reader(bell, self._rung, bell)
            try:
                await loop.create_future()
            finally:
                loop.remove_reader(bell)

    def look(self) -> bool:
        """Ask the kernel now."""
        held = holds(self._vip)
        if held != self.held:
            self.held, self.since = held, time.time()
            self._changed()
        return held

    def _rung(self, bell: socket.socket) -> None:
        with suppress(OSError):  # ENOBUFS: something was lost, so we look all the same
            while bell.recv(65536):
                pass
        self.look()
