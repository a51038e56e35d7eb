"""The single waits of which a failover's length is made, in seconds, each with its source. Pure."""

from __future__ import annotations

from lbha.check.watch import BACKSTOP
from lbha.election import NodeState, priority, skew
from lbha.model import CheckTimes, Cluster, Failover, Health, Kind, Mode, Service
from lbha.priority import agent_terms, terms
from lbha.timing import CONNECT

Wait = tuple[float, str]
"""At most so many seconds, and why."""


def silence(times: Failover) -> Wait:
    """Until the backups miss a holder that has fallen silent just after an advert; their skew comes on top."""
    return (
        times.down_timer_adverts * times.advert_interval,
        f"{times.down_timer_adverts} × {times.advert_interval:g} s: down_timer_adverts × advert_interval",
    )


def scripts(health: Health) -> Wait:
    """Until keepalived's own check has failed often enough: a run under way may have been good still."""
    return (
        health.fall * health.interval + BACKSTOP,
        f"health.fall {health.fall} × interval {health.interval} s, the last run of `lbha check haproxy` takes "
        f"{BACKSTOP:g} s at most",
    )


def observed(cluster: Cluster) -> Service:
    """The service whose clients this is about, as in the drill: the first kube-apiserver, else the first."""
    return next(
        (service for service in cluster.services if service.kind is Kind.KUBE_APISERVER), cluster.services[0]
    )


def longest_skew(cluster: Cluster, mode: Mode) -> Wait | None:
    """How long (s) the successor waits, and which node that is with which priority, everything else being well:
    the longest over every node that may hold the VIP. None where there is no other node."""
    found = []
    values = _backups(cluster, mode)
    # With failback the VIP rests on the first node; without, on any.
    for holder in range(1 if cluster.failover.failback else len(values)):
        others = [(value, node.name) for value, node in zip(values, cluster.nodes, strict=True)]
        del others[holder]
        if others:
            value, name = max(others)
            wait = skew(value, cluster.failover.advert_interval)
            found.append((wait, f"(256 - {value}) / 256 × {cluster.failover.advert_interval:g} s, {name} next"))
    return max(found, default=None)


def removal(check: CheckTimes, *, silent: bool) -> Wait:
    """How long (s) haproxy's checks take to leave out a server that fails: `silent` where its host is dead, or
    its process is frozen before the TLS handshake, and each check times out. One that errs does so at once."""
    between = f"{check.interval:g} s until the next check, {check.fall - 1} × {check.fast_interval:g} s"
    if not silent:
        return check.interval + (check.fall - 1) * check.fast_interval, between
    # haproxy gives connection and TLS handshake min(inter, timeout connect), also where the next check comes
    # after fastinter. A frozen apiserver with the defaults: 1.7 to 2.2 s measured, 2.2 s computed.
    each = min(check.interval, CONNECT)
    return (
        check.interval + (check.fall - 1) * check.fast_interval + check.fall * each,
        f"{between}, {check.fall} checks that end after {each:g} s",
    )


def _backups(cluster: Cluster, mode: Mode) -> list[int]:
    """Every node's priority while it is well and does not hold the VIP."""
    count, failback = len(cluster.nodes), cluster.failover.failback
    if mode is Mode.AGENT:
        sizes = agent_terms(count, failback=failback)
        return [priority(sizes, index, NodeState()) for index in range(count)]
    sizes = terms(count, len(cluster.services), failback=failback)
    local = len(cluster.services) if sizes.local else 0
    return [sizes.base(index, local) for index in range(count)]
