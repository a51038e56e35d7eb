"""Asks the node that will have the VIP to take it without delay (`lbha.resign`), once each time."""

from __future__ import annotations

import logging
import time

from lbha.facts import Peer, Report
from lbha.known import recent
from lbha.model import Cluster, Node
from lbha.resign import resign, successor
from lbha.timing import REPORT_FRESH

_LOG = logging.getLogger("lbha")


class Resignation:
    """`look` whenever this node's priority or a peer's may have changed."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster, self._node = cluster, node
        self._asked: tuple[str, int | None] | None = None

    def look(self, own: Report, peers: tuple[Peer, ...]) -> None:
        """Ask, where there is a successor that was not asked yet."""
        now = time.time()
        reports = [report for peer in peers if (report := recent(peer, now, REPORT_FRESH))]
        to = successor(own, reports, self._cluster)
        asked = (to.node, own.vrrp.effective_priority) if to else None
        if asked == self._asked:
            return
        self._asked = asked
        if to is None:
            return
        try:
            resign(self._cluster, self._node, self._cluster.node(to.node))
        except OSError as error:
            _LOG.info("%s takes the VIP a little later: %s", to.node, error.strerror or error)
        else:
            _LOG.info("asked %s to take the VIP now: its priority is higher than this node's", to.node)
