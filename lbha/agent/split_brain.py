"""Watches for a second holder of the VIP, and for being cut off, and gives the VIP up where it must."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from lbha.agent.adverts import Adverts
from lbha.agent.announce import Insistence, announce
from lbha.facts import Peer, SplitFacts
from lbha.host import interface_of
from lbha.known import recent
from lbha.model import Cluster, Node
from lbha.split import ALONE, Rival, Seen, Split, step
from lbha.timing import REPORT_FRESH
from lbha.vrrp import rank

ADVERT_FRESH = 0.5
"""Seconds since an advert that it counts for: one and a half of its period, and a look of `lbha.agent.adverts`
besides. For a peer's report it is REPORT_FRESH."""

_LOG = logging.getLogger("lbha")


class SplitBrain:
    """`look` once a decision; `facts` say what it found."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.adverts = Adverts(cluster, node)
        self._cluster, self._node = cluster, node
        self._interface: str | None = None
        self._split = Split()
        self._insistence = Insistence()
        self._since: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        self._interface = await asyncio.to_thread(interface_of, self._cluster, self._node)
        await self.adverts.run(self._interface)

    def look(self, *, holds: bool, priority: int, peers: Sequence[Peer], serving: bool) -> str | None:
        """Why this node must not hold the VIP now; None when it may."""
        now, contested = time.time(), bool(self._split.proven)
        seen = Seen(
            now=now,
            holds=holds,
            rank=rank(priority, self._node.address),
            rivals=self._rivals(peers, now),
            alone=bool(peers) and all(_silent(peer, now) for peer in peers),
            serving=serving,
        )
        self._split = step(self._split, seen)
        release = self._split.release
        if not self._split.proven and release is None:
            self._since = None
            if contested and holds:
                self._announce()
        elif self._since is None:
            self._since = now
        settled = all(_lets_go(peer, now) for peer in peers)
        if self._insistence.due(holds=holds, settled=settled, now=time.monotonic()):
            self._announce()
        return release.why if release else None

    @property
    def facts(self) -> SplitFacts:
        """For people."""
        release = self._split.release
        return SplitFacts(
            rivals=tuple(sorted(self._split.proven)),
            released=release.why if release else None,
            since=self._since,
            strangers=self.adverts.strangers,
        )

    def _rivals(self, peers: Sequence[Peer], now: float) -> list[Rival]:
        """By its report where that is fresh, which then also says when somebody does *not* hold the VIP. Who
        has it in FAULT (a frozen keepalived does not obey) has no right to it, and is no rival; nor is one with
        a stale VIP, which its agent removes."""
        found, late = [], time.monotonic() - now
        addresses = {node.name: node.address for node in self._cluster.nodes}
        for peer in peers:
            heard, address = self.adverts.heard.get(peer.node), addresses[peer.node]
            audible = heard is not None and heard.advert.priority > 0 and now + late - heard.at < ADVERT_FRESH
            report = recent(peer, now, REPORT_FRESH)
            if report is not None and peer.heard is not None:
                if report.holds_vip and report.decision.up and not report.stale:
                    its = rank(report.decision.priority, address)
                    found.append(Rival(peer.node, peer.heard, its, report=True, adverts=audible))
            elif heard is not None and audible:
                its = rank(heard.advert.priority, address)
                found.append(Rival(peer.node, heard.at - late, its, report=False, adverts=True))
        return found

    def _announce(self) -> None:
        if self._interface is None:
            return
        try:
            announce(self._cluster.vips, self._interface)
        except OSError as error:
            _LOG.warning("the VIP is not announced anew: %s", error.strerror)


def _silent(peer: Peer, now: float) -> bool:
    return peer.silent is not None and now - peer.silent >= ALONE


def _lets_go(peer: Peer, now: float) -> bool:
    """It says itself that it does not hold the VIP."""
    report = recent(peer, now, REPORT_FRESH)
    return report is not None and not report.holds_vip
