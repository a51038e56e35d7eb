"""What happens when a named node or process dies now: `lbha explain --if-dies`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from lbha.election import skew, winner
from lbha.errors import ConfigError
from lbha.facts import Report, Status
from lbha.forecast.waits import removal
from lbha.health import SERVING
from lbha.known import earned, holders, known, standing
from lbha.model import Cluster, Service
from lbha.timing import HAPROXY_INTERVAL

PROCESSES = ("haproxy", "keepalived", "agent")
"""What may die on a node beside the backends of its services."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `failure` leads to.

    `before` and `holder` hold the VIP before and after it; None: nobody, or nobody that is known.
    `seconds` bounds how long the VIP takes to move; 0: nothing moves; None: it is not known to come back.
    `lost` are the servers that leave their pools, `emptied` the services left without a live one,
    `quorum_lost` the etcd services left without a quorum, `not_heard` the nodes that nothing is known of.
    """

    failure: str
    before: str | None
    holder: str | None
    seconds: float | None
    how: str
    lost: tuple[str, ...]
    emptied: tuple[str, ...]
    quorum_lost: tuple[str, ...]
    not_heard: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Failure:
    """`part` None: the whole node. `service`: the part is its backend on the node."""

    node: str
    part: str | None
    service: Service | None
    addresses: tuple[str, ...]

    def takes(self, service: str) -> bool:
        """Does it take the node's backend of that service with it?"""
        return self.part is None or (self.service is not None and self.service.name == service)


def after(cluster: Cluster, status: Status, failure: str) -> Outcome:
    """What follows from `cp2`, `cp1/haproxy`, `cp1/keepalived`, `cp1/agent` or `cp3/SERVICE`.

    ConfigError for a name that is none of these.
    """
    what = _parsed(cluster, failure)
    reports = known(status, status.report.at)
    gone = [
        (server.service, server.name)
        for server in status.haproxy.servers
        if server.live and server.endpoint.address in what.addresses and what.takes(server.service)
    ]
    emptied = _emptied(status, gone)
    present = next(iter(holders(reports)), None)
    then = _priorities(reports, what, emptied=bool(emptied))
    successor = _elected(cluster, then, present)
    noticed = _noticed(cluster, what, emptied) + SERVING.fall
    seconds, how = _move(cluster, status, what, noticed, present, successor, then)
    return Outcome(
        failure=failure,
        before=present,
        holder=present if seconds == 0 else successor if seconds else None,
        seconds=seconds,
        how=how,
        lost=tuple("/".join(each) for each in gone),
        emptied=emptied,
        quorum_lost=_quorum_lost(status, what),
        not_heard=tuple(node.name for node in cluster.nodes if node.name not in {*reports, what.node}),
    )


def _parsed(cluster: Cluster, failure: str) -> _Failure:
    name, slash, part = failure.partition("/")
    nodes = {node.name: node for node in cluster.nodes}
    services = {service.name: service for service in cluster.services}
    if name not in nodes:
        raise ConfigError(f"{failure}: there is no node {name!r}; nodes are {', '.join(nodes)}")
    if slash and part not in (*PROCESSES, *services):
        may = ", ".join((*PROCESSES, *services))
        raise ConfigError(f"{failure}: {part!r} is nothing that may die; it may be {may}")
    service = None if part in PROCESSES else services.get(part)
    return _Failure(name, part if slash else None, service, nodes[name].addresses)


def _emptied(status: Status, gone: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    left = {server.service for server in status.haproxy.servers if server.live}
    kept = {
        each.service for each in status.haproxy.servers if each.live and (each.service, each.name) not in gone
    }
    return tuple(sorted(left - kept))


def _priorities(reports: Mapping[str, Report], what: _Failure, *, emptied: bool) -> dict[str, int]:
    """Who takes part afterwards, with which priority. An empty pool is empty for every node alike.

    A lost local term is left out: it is smaller than the holder's and absent with failback, so nothing moves.
    """
    then = {}
    for name, report in reports.items():
        value = standing(report)
        if value and emptied:
            value -= earned(report, "serving")
        if name == what.node and what.part in (None, "haproxy", "keepalived"):
            value = 0
        then[name] = max(0, value)
    return then


def _elected(cluster: Cluster, then: Mapping[str, int], present: str | None) -> str | None:
    names = [node.name for node in cluster.nodes if node.name in then]
    addresses = [int(ip_address(cluster.node(name).address)) for name in names]
    index = winner(
        [then[name] for name in names], names.index(present) if present in names else None, addresses
    )
    return None if index is None else names[index]


def _quorum_lost(status: Status, what: _Failure) -> tuple[str, ...]:
    """The etcd services whose well voters, without the node's, are no majority."""
    found = []
    for etcd in status.etcd:
        voters = [member for member in etcd.members if not member.learner]
        well = [each for each in voters if each.leader and each.endpoint.address not in what.addresses]
        if etcd.quorum and what.takes(etcd.service) and len(well) <= len(voters) // 2:
            found.append(etcd.service)
    return tuple(found)


def _move(
    cluster: Cluster,
    status: Status,
    what: _Failure,
    noticed: float,
    present: str | None,
    successor: str | None,
    then: Mapping[str, int],
) -> tuple[float | None, str]:
    """The bound in seconds, and how the VIP gets from one node to the other in a sentence."""
    if what.part == "agent":
        return 0.0, f"nothing moves: {what.node}'s last verdict stands, and keepalived's own check goes on"
    if present is None:
        if what.node == status.report.node:
            return 0.0, f"nothing moves: {what.node} does not hold the VIP"
        return None, f"who holds the VIP is not known here: {status.peers_off or 'no holder is heard'}"
    if successor == present:
        other = "" if what.node == present else f": {what.node} does not hold the VIP"
        return 0.0, f"nothing moves{other}"
    if successor is None:
        why = status.peers_off or "no other node is heard that can"
        return None, f"{present} loses the VIP, and nobody is known to take it: {why}"
    times = cluster.failover
    wait = skew(then[successor], times.advert_interval)
    waits = f"its skew of {wait * 1000:.0f} ms"
    silence = times.down_timer_adverts * times.advert_interval
    adverts = f"{times.down_timer_adverts} × {times.advert_interval:g} s"
    if what.node != present or what.service is not None:
        return noticed + silence + wait, (
            f"{present}'s priority falls {noticed:g} s later at most; {successor} takes over after {adverts} "
            f"and {waits}, and {present} serves until then"
        )
    if what.part == "haproxy":
        return HAPROXY_INTERVAL + wait, (
            f"{present} goes to FAULT and announces priority 0, "
            f"{HAPROXY_INTERVAL * 1000:.0f} ms later at most; "
            f"{successor} takes over after {waits}"
        )
    return silence + wait, f"{present} falls silent; {successor} takes over after {adverts} and {waits}"


def _noticed(cluster: Cluster, what: _Failure, services: Sequence[str]) -> float:
    """Seconds until haproxy's checks have the backends of these services down: one that died refuses at once,
    one on a dead host lets each check time out."""
    checks = [service.check for service in cluster.services if service.name in services]
    return max((removal(check, silent=what.part is None)[0] for check in checks), default=0.0)
