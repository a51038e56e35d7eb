"""What is wrong in a status. Pure: `lbha status` tells it first and exits by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lbha.agent.words import utc
from lbha.facts import Report, Status
from lbha.known import NOT_ASKED, holders, known
from lbha.quorum import alarms

LATE_MS = 1000.0
"""A loop that was later than this judged nothing in the meantime."""

_ALARM_CURES = {
    "NOSPACE": "writes are refused, reads go on; compact, defragment, then `etcdctl alarm disarm`",
    "CORRUPT": "members differ in their data; replace the one that is wrong, then `etcdctl alarm disarm`",
}
"""What an alarm of etcd means to an operator. No haproxy knows of it: each member has it, and none is worse."""

_NAMED = 5
"""Servers of one service that are told by name."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`wrong`: `lbha status` exits 1. Else it is meant so, and only to be known."""

    text: str
    wrong: bool = True


def problems(status: Status, now: float) -> list[Problem]:
    """The worst first; `now` in seconds since the epoch."""
    reports = known(status, now)
    found = [*_vip(status, reports), *_strangers(status)]
    for report in reports.values():
        found += _node(report, status)
    found += [*_peers(status, reports), *_own(status), *_backends(status)]
    return sorted(found, key=lambda problem: not problem.wrong)


def _vip(status: Status, reports: dict[str, Report]) -> Iterator[Problem]:
    vips = ", ".join(status.vips)
    having = holders(reports)
    if len(having) > 1:
        yield Problem(f"{len(having)} nodes hold {vips}: {' and '.join(having)}")
    if not having:
        if all(peer.node in reports for peer in status.peers):
            yield Problem(f"nobody holds {vips}")
        elif status.report.vrrp.state != "BACKUP":  # A backup hears a holder, whoever it is.
            yield Problem(f"nobody that is heard holds {vips}")


def _strangers(status: Status) -> Iterator[Problem]:
    for each in status.split.strangers:
        yield Problem(
            f"{each.source} is no node of this cluster and advertises its virtual router id, with priority "
            f"{each.priority} for {', '.join(each.addresses)}: give one of the two another virtual_router_id"
        )


def _node(report: Report, status: Status) -> Iterator[Problem]:
    node, decision, vrrp, own = report.node, report.decision, report.vrrp, status.report
    booted = report is own and status.quarantined > 0
    if not decision.up:
        yield Problem(f"{node} is in FAULT: {decision.why}")
    elif vrrp.state == "FAULT":
        yield Problem(f"keepalived of {node} is in FAULT although haproxy can serve; is the interface down?")
    elif vrrp.effective_priority not in (None, decision.priority):
        yield Problem(
            f"keepalived of {node} has priority {vrrp.effective_priority}, lbha decided {decision.priority}; "
            f"does its configuration track the agent's files?"
        )
    if vrrp.problem not in (None, NOT_ASKED):
        yield Problem(f"keepalived of {node}: {vrrp.problem}")
    if decision.up and not report.drained and not booted:
        for term in decision.terms:
            if term.name == "serving" and not term.earned:
                yield Problem(f"{node} does not serve: {term.why}")
    if report.config != own.config:
        yield Problem(f"{node} has another lbha.toml than {own.node}", wrong=False)
    if report.version != own.version:
        yield Problem(f"{node} runs lbha {report.version}, {own.node} runs {own.version}", wrong=False)
    if report.drained and node != own.node:
        yield Problem(f"{node} is drained", wrong=False)


def _peers(status: Status, reports: dict[str, Report]) -> Iterator[Problem]:
    if status.peers_off:
        yield Problem(f"the agents do not hear each other: {status.peers_off}", wrong=False)
        return
    for peer in status.peers:
        if peer.node not in reports and peer.problem != NOT_ASKED:
            yield Problem(f"{peer.node} is not heard: {peer.problem or 'its last report is old'}")


def _own(status: Status) -> Iterator[Problem]:
    if status.refused:
        yield Problem(f"lbha.toml is refused, what ran before runs on: {status.refused}")
    elif status.applied and status.applied.result == "held":
        yield Problem(f"apply is held: {status.applied.text}", wrong=False)
    if status.drain:
        reason = f": {status.drain.reason}" if status.drain.reason else ""
        yield Problem(f"{status.report.node} is drained{reason}", wrong=False)
    if status.quarantined > 0:
        yield Problem(
            f"{status.report.node} booted just now: it takes over only when nobody else can serve, for another "
            f"{status.quarantined:.0f} s",
            wrong=False,
        )
    if status.lag_ms > LATE_MS:
        yield Problem(f"the agent was {status.lag_ms:.0f} ms late: is the CPU busy?", wrong=False)


def _backends(status: Status) -> Iterator[Problem]:
    for etcd in status.etcd:
        if etcd.quorum is False:
            yield Problem(
                f"{etcd.service} has lost its quorum, since {utc(etcd.since)}: no writes until a member "
                f"returns; its pool stays open for serializable reads"
            )
        serving = {server.endpoint for server in status.haproxy.servers if server.live}
        for member in etcd.members:
            if member.learner and member.endpoint in serving:
                yield Problem(
                    f"{etcd.service}: {member.endpoint} is a learner, which refuses clients, and etcd calls it "
                    f'healthy: use backends = "etcd-members", or drain its server until it is promoted'
                )
        for alarm in alarms(etcd):
            cure = _ALARM_CURES.get(alarm, "see `etcdctl alarm list`")
            yield Problem(f"{etcd.service} has raised the alarm {alarm}: {cure}")
    for pool in status.pools:
        if pool.error:
            yield Problem(f"discovery of {pool.service}: {pool.error}")
    for service, live in status.haproxy.live.items():
        if not live and status.haproxy.problem is None:
            yield Problem(f"{service} has no live server")
    down: dict[str, list[str]] = {}
    meant: dict[str, list[str]] = {}
    for server in status.haproxy.servers:
        if not server.live:
            by_hand = server.status.startswith(("MAINT", "DRAIN"))
            (meant if by_hand else down).setdefault(server.service, []).append(f"{server.name} {server.status}")
    for service, names in down.items():
        yield Problem(f"{service}: {_some(names)}")
    for service, names in meant.items():
        yield Problem(f"{service}: {_some(names)}", wrong=False)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
