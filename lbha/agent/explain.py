"""`lbha explain`: why a node holds the VIP or not, what moved it last, and what would. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lbha.agent.events import Event
from lbha.agent.words import ago, bound, moment
from lbha.facts import Status, Term
from lbha.known import NOT_ASKED, holders, known, standing
from lbha.outcome import Outcome

MOVES = ("vip-gained", "vip-lost")
"""The kinds of events that tell of the VIP."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`holder` None: nobody that is heard. `moved` is the last event about the VIP on this node."""

    node: str
    holder: str | None
    why: str
    priority: int
    terms: tuple[Term, ...]
    moved: Event | None
    outcomes: tuple[Outcome, ...]


def explain(status: Status, events: Iterable[Event], outcomes: Sequence[Outcome], now: float) -> Explanation:
    """`events` oldest first; `now` in seconds since the epoch."""
    report = status.report
    return Explanation(
        node=report.node,
        holder=next(iter(holders(known(status, now))), None),
        why=_why(status, now),
        priority=report.decision.priority,
        terms=report.decision.terms,
        moved=next((each for each in reversed([*events]) if each.kind in MOVES), None),
        outcomes=tuple(outcomes),
    )


def _why(status: Status, now: float) -> str:
    own, vips = status.report, ", ".join(status.vips)
    node, value, vrrp = own.node, own.decision.priority, own.vrrp
    reports = known(status, now)
    others = {name: standing(report) for name, report in reports.items() if name != node}
    compared = ", ".join(f"{name} has {n}" if n else f"{name} takes no part" for name, n in others.items())
    if own.holds_vip:
        if not standing(own):
            reason = own.decision.why if not own.decision.up else vrrp.problem or "keepalived is in FAULT"
            return f"{node} still holds {vips}, and must not: {reason}"
        better = [name for name, other in others.items() if other > value]
        if better:
            return f"{node} holds {vips} for now: {better[0]}'s priority {others[better[0]]} beats its {value}"
        drained = ", although it is drained" if own.drained else ""
        said = compared or status.peers_off or "no other node is heard"
        return f"{node} holds {vips}{drained}: no node that is heard has more than its {value} ({said})"
    if not own.decision.up:
        return f"{node} cannot hold {vips}, it is in FAULT: {own.decision.why}"
    if vrrp.problem not in (None, NOT_ASKED):
        return f"{node} cannot hold {vips}: {vrrp.problem}"
    if vrrp.state == "FAULT":
        return f"{node} cannot hold {vips}: keepalived is in FAULT although haproxy can serve"
    holder = next(iter(holders(reports)), None)
    if holder is None:
        who = status.peers_off or "no holder is heard"
        return (
            f"{node} does not hold {vips}: it hears a higher priority than its {value}, but not whose ({who})"
        )
    if others[holder] <= value:
        return f"{node} does not hold {vips} yet: {holder} has it with {others[holder]}, {node} has {value}"
    drained = " and is drained" if own.drained else ""
    return f"{node} does not hold {vips}: {holder} has it with {others[holder]}, {node} has {value}{drained}"


def lines(found: Explanation, now: float) -> list[str]:
    """For people."""
    told = [found.why, "", f"priority of {found.node}: {found.priority or 'none, it is in FAULT'}"]
    for term in found.terms:
        if term.worth:  # With failback = true, local and holder count for nothing.
            points = str(term.points) if term.earned else f"0 of {term.worth}"
            told.append(f"  {term.name:<8} {points:>9}  {term.why}")
    told.append("")
    if found.moved is None:
        told.append("the VIP has not moved here since events are kept")
    else:
        at = found.moved.at
        told.append(f"last move {ago(at, now)} ({moment(at)}): {found.moved.text}")
    for outcome in found.outcomes:
        told += ["", *outcome_lines(outcome)]
    return told


def outcome_lines(found: Outcome) -> list[str]:
    """What happens, how fast, and what else goes."""
    told = [f"if {found.failure} dies now:", f"  {found.how}"]
    if found.seconds:
        told.append(f"  {found.holder} holds the VIP after {bound(found.seconds)} at most")
    if found.lost:
        told.append(f"  leaves its pool: {', '.join(found.lost)}")
    if found.emptied:
        told.append(f"  no live server is left: {', '.join(found.emptied)}")
    if found.quorum_lost:
        told.append(f"  loses its quorum, no writes: {', '.join(found.quorum_lost)}")
    if found.not_heard:
        told.append(f"  nothing is known of {', '.join(found.not_heard)}: one of them may take over instead")
    return told
