"""What a status tells of each node: its own report, and its peers' as long as they are fresh. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lbha.facts import Peer, Report, Status

FRESH = 3.0
"""Seconds that a peer's report counts for: after that nothing is known of the peer."""

NOT_ASKED = "not asked yet"
"""The `problem` of facts that were never asked for: no news, good or bad."""


def known(status: Status, now: float) -> dict[str, Report]:
    """The reports that count, by node; `now` in seconds since the epoch."""
    found = {status.report.node: status.report}
    for peer in status.peers:
        if report := recent(peer, now, FRESH):
            found[peer.node] = report
    return found


def recent(peer: Peer, now: float, seconds: float) -> Report | None:
    """Its last report, unless it came longer ago."""
    return peer.report if peer.heard is not None and now - peer.heard < seconds else None


def holders(reports: Mapping[str, Report]) -> list[str]:
    """The nodes that say they have the VIP, the highest priority first."""
    found = [name for name, report in reports.items() if report.holds_vip]
    return sorted(found, key=lambda name: -reports[name].decision.priority)


def standing(report: Report) -> int:
    """The priority with which a node takes part in elections; 0 when it takes no part."""
    stopped = report.vrrp.problem not in (None, NOT_ASKED) or report.vrrp.state == "FAULT"
    return 0 if stopped else report.decision.priority


def earned(report: Report, name: str) -> int:
    """What the term of that name adds to a node's priority now."""
    return sum(term.points for term in report.decision.terms if term.name == name)
