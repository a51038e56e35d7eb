"""Clients come back at once: what the agent does when the VIP leaves this node, and when it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import Protocol

from lbha import leftovers, neighbours, tickle
from lbha.agent.carried import Carried, HeardConnections
from lbha.check.holder import holds
from lbha.connections import to_tell, vip_ends
from lbha.errors import EngineError
from lbha.facts import ClientFacts
from lbha.handover import hand_over
from lbha.model import Cluster, Failover
from lbha.pause import While

AGAIN = 1.0
PATIENCE = 60.0
"""Seconds between attempts while haproxy does not answer, and until it is given up: a frozen one may thaw, and
its clients may not have been told by anybody. AGAIN is also what sockets get to end by themselves
after a handover."""

_LOG = logging.getLogger("lbha")


class Vip(Protocol):
    """What is asked of the VIP's watch."""

    @property
    def held(self) -> bool: ...


class Told(Protocol):
    """Who is told what was done: an event's kind, `count` clients, and in words."""

    def __call__(self, kind: str, count: int, text: str) -> None: ...


class Recovery:
    """Until cancelled; `look` says that the VIP may have moved."""

    def __init__(
        self, cluster: Cluster, vip: Vip, carried: Carried, heard: HeardConnections, told: Told
    ) -> None:
        self._cluster, self._vip, self._told = cluster, vip, told
        self._carried, self._heard = carried, heard
        self._held = vip.held
        self._moved = asyncio.Event()
        self._pause = While(lambda: False)

    def look(self) -> None:
        """Now or at the next turn of the loop."""
        if self._vip.held != self._held:
            self._pause.stop()
            self._moved.set()

    def facts(self) -> ClientFacts:
        """For people."""
        if self._vip.held:
            return ClientFacts(self._carried.count, None, self._carried.dropped)
        fresh = self._heard.fresh()
        if not fresh:
            return ClientFacts(None, None, 0)
        node = max(fresh, key=lambda name: fresh[name].at)
        return ClientFacts(len(fresh[node].connections), node, fresh[node].dropped)

    async def run(self) -> None:
        """One thing at a time: when the VIP moves again, what was begun ends first."""
        if self._held:
            await self._prepare()
        try:
            while True:
                await self._moved.wait()
                self._moved.clear()
                if self._vip.held == self._held:
                    continue
                self._held = self._vip.held
                self._pause = While(partial(_is_held, self._cluster.vips[0], self._held))
                if self._held:
                    await self._prepare()
                await (self._tell_clients() if self._held else self._hand_over())
        finally:
            self._pause.stop()

    async def _prepare(self) -> None:
        """For the day that the VIP leaves."""
        try:
            await asyncio.to_thread(neighbours.prepare, self._cluster.vips)
        except OSError as error:
            _LOG.info("clients may wait 1 s when the VIP leaves: %s", error)

    async def _hand_over(self) -> None:
        await self._clear()
        if not await self._away(settled(self._cluster.failover)):
            return
        began, ended = time.monotonic(), 0
        while True:
            try:
                ended += await asyncio.to_thread(hand_over, self._cluster, self._pause)
                break
            except (EngineError, OSError) as error:
                _LOG.info("no handover: %s", error)
            if time.monotonic() - began > PATIENCE or not await self._away(AGAIN):
                break
        if ended:
            took = time.monotonic() - began
            self._told(
                "handover", ended, f"the VIP has left: ended {ended} sessions of its clients in {took:.1f} s"
            )
        if await self._away(AGAIN):
            await self._clear()

    async def _clear(self) -> None:
        if self._pause.wait(0.0):
            with suppress(OSError):
                await asyncio.to_thread(leftovers.clear_all, self._cluster)

    async def _away(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), seconds)
        return self._pause.wait(0.0)

    async def _tell_clients(self) -> None:
        heard = self._heard.connections()
        if not heard:
            return
        began = time.monotonic()
        try:
            carried = await asyncio.to_thread(self._carried.read)
            keys = to_tell(heard, carried, list(vip_ends(self._cluster).values()))
            await asyncio.to_thread(leftovers.clear, self._cluster, keys)
            rate = self._cluster.failover.handover_rate
            sent = await asyncio.to_thread(tickle.tell, keys, self._cluster.vips, rate, self._pause)
        except OSError as error:
            _LOG.warning("clients are not told that the VIP has moved: %s", error.strerror or error)
            return
        if sent:
            took = time.monotonic() - began
            text = f"the VIP has come: {sent} tickles for {len(keys)} connections of before in {took:.1f} s"
            self._told("tickle", sent, text)
        if self._vip.held:
            self._heard.forget()


def settled(failover: Failover) -> float:
    """Seconds until somebody else has a VIP that was given up: the longest skew (RFC 9568, 6.1), and a moment.

    A client that is told before that sends its SYN to nobody, and the next one only 1 s later.
    """
    return failover.advert_interval + 0.05


def _is_held(vip: str, wanted: bool) -> bool:
    return holds(vip) is wanted
