"""A keepalived that was killed leaves the VIP on its node, and another node takes it too: two holders, until
somebody removes the stale one. keepalived itself does when it is started again; this does when it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from lbha import host
from lbha.agent.vip_watch import VipWatch
from lbha.keepalived import Keepalived

LOOK_EVERY = 0.25

GRACE = 1.0
"""Seconds that systemd gets to start keepalived again. A backup has taken over in 0.7 s by then."""


class StaleVip:
    """Removes `vips` from this host when keepalived is down, until cancelled.

    `needless` says whether they may go: not when nobody else would answer for them. `stale`: they are here
    although keepalived is down.
    """

    def __init__(
        self,
        vips: Sequence[str],
        vip: VipWatch,
        keepalived: Keepalived,
        needless: Callable[[], bool],
        told: Callable[[str], None],
    ) -> None:
        self._vips, self._vip, self._keepalived = vips, vip, keepalived
        self._needless, self._told = needless, told
        self._down_since: float | None = None

    @property
    def stale(self) -> bool:
        return self._down_since is not None and self._vip.held

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not self._vip.held or self._keepalived.pid() is not None:
                self._down_since = None
                continue
            now = time.monotonic()
            self._down_since = self._down_since or now
            if now - self._down_since >= GRACE and self._needless():
                removed = await asyncio.to_thread(host.remove_addresses, self._vips)
                self._vip.look()
                if removed:
                    self._told(f"keepalived is down: removed the stale {', '.join(removed)}")
