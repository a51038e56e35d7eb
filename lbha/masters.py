"""Each master's apiserver, controller-manager and scheduler, and which one is active. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lbha.facts import ControlPlaneFacts, Lease, Report, Status
from lbha.known import NOT_ASKED, known

COMPONENTS = ("kube-controller-manager", "kube-scheduler")

ACTIVE, STANDBY, RUNS, ABSENT, UNKNOWN = "active", "standby", "runs", "not running", "?"
"""What a component is: `RUNS` where nobody can tell whether it is active."""

SKEW = 5.0
"""Seconds that clocks may differ: `renewed` is of the holder's."""


@dataclass(frozen=True, slots=True)
class Master:
    """A node with an apiserver: haproxy's word for that, and what each of COMPONENTS is there."""

    node: str
    apiserver: str
    components: tuple[str, ...]


def masters(status: Status, now: float) -> tuple[Master, ...]:
    """The nodes with a server of the apiserver service, in haproxy's order; none before anything was asked."""
    facts = status.control_plane
    if facts.problem == NOT_ASKED:
        return ()
    reports = known(status, now)
    nodes = {status.report.node, *(peer.node for peer in status.peers)}
    return tuple(
        Master(
            server.name,
            server.status,
            tuple(
                _word(facts, component, server.name, reports.get(server.name), now) for component in COMPONENTS
            ),
        )
        for server in status.haproxy.servers
        if server.service == facts.service and server.name in nodes
    )


def remarks(status: Status, now: float) -> list[str]:
    """What the table of masters cannot say: why it knows nothing, and who is active elsewhere or no more.

    Nothing where no node of lbha.toml is a master.
    """
    facts = status.control_plane
    if not masters(status, now):
        return []
    if facts.problem is not None:
        return [f"which controller-manager and scheduler is active is unknown: {facts.problem}"]
    nodes = {status.report.node, *(peer.node for peer in status.peers)}
    told = []
    for lease in facts.leases:
        if not lease.holder:
            told.append(f"no {lease.component} has ever been active")
        elif not _live(lease, now):
            told.append(f"no {lease.component} is active: {lease.holder} was, {now - lease.renewed:.0f} s ago")
        elif not any(_is(lease.holder, node) for node in nodes):
            told.append(f"{lease.component} is active on {lease.holder}, which is no node of lbha.toml")
    return told


def _word(facts: ControlPlaneFacts, component: str, node: str, report: Report | None, now: float) -> str:
    lease = next((each for each in facts.leases if each.component == component), None)
    if lease is not None and _live(lease, now) and _is(lease.holder, node):
        return ACTIVE
    if report is None or report.components is None:
        return UNKNOWN
    if component not in report.components:
        return ABSENT
    return RUNS if lease is None else STANDBY


def _live(lease: Lease, now: float) -> bool:
    return bool(lease.holder) and now - lease.renewed <= lease.duration + SKEW


def _is(host: str, node: str) -> bool:
    """A host calls itself by its full name, or by the first label of it."""
    return node.lower() in (host.lower(), host.lower().partition(".")[0])
