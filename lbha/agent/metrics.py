"""What the agent counts, and all of it with the present state as Prometheus text.

prometheus_client is imported at the first scrape: where nobody scrapes, it costs nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from lbha.facts import Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CHECK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds. A good answer of haproxy takes about 1 ms; 0.1 is the pace of the questions."""


_Labels = TypeVar("_Labels", bound=tuple[str, ...])


class Counters:
    """What has happened since this agent started."""

    def __init__(self) -> None:
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.applies: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.checks = [0] * (len(CHECK_BUCKETS) + 1)
        self.check_seconds = 0.0
        self.decisions = 0
        self.sessions_ended: Counter[str] = Counter()
        self.tickles = 0

    def transition(self, to: str, cause: str) -> None:
        """keepalived went to a state: MASTER, BACKUP or FAULT. `cause` is a word, not a sentence."""
        self.transitions[to, cause] += 1

    def applied(self, result: str) -> None:
        """An apply ended: `lbha.facts.Applied.result`."""
        self.applies[result] += 1

    def checked(self, seconds: float) -> None:
        """haproxy answered, or was given up, after `seconds`."""
        self.checks[bisect_left(CHECK_BUCKETS, seconds)] += 1
        self.check_seconds += seconds

    def decided(self) -> None:
        """The agent looked at everything and decided, the same or anew."""
        self.decisions += 1

    def recovered(self, cause: str, count: int) -> None:
        """Clients were told that their connection is dead: by the end of `count` sessions, or ("tickle") by so
        many tickles."""
        if cause == "tickle":
            self.tickles += count
        else:
            self.sessions_ended[cause] += count

    def event(self, kind: str) -> None:
        """An event was kept."""
        self.events[kind] += 1


def exposition(status: Status, counters: Counters) -> bytes:
    """Prometheus text, format 0.0.4. About 1 ms."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Now(_metrics(status, counters)))
    return generate_latest(registry)


class _Now:
    """A collector of what was made for one scrape."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metrics(status: Status, counters: Counters) -> Iterator[Metric]:
    yield from _own(status)
    yield from _pools(status)
    yield from _counted(counters)


def _own(status: Status) -> Iterator[Metric]:
    report, decision = status.report, status.report.decision
    yield _gauge("vip_held", "1 while this node holds the VIP.", report.holds_vip)
    yield _gauge(
        "priority_effective",
        "The priority that keepalived should show; 0 in FAULT.",
        decision.priority,
    )
    terms = {(term.name,): term.points for term in decision.terms}
    yield _gauges("priority_term", "What each term adds to the priority.", ("term",), terms)
    yield _gauge("up", "1 while this haproxy can serve; 0 is FAULT.", decision.up)
    yield _gauge("score", "What is added to keepalived's base priority.", decision.score)
    yield _gauge("drained", "1 while an operator wants the VIP elsewhere.", status.drain is not None)
    yield _gauge("loop_lag_seconds", "The agent's worst lateness in the last minute.", status.lag_ms / 1000)
    yield _gauge("old_workers", "haproxy workers that reloads left behind.", len(status.old_workers))
    held = report.holds_vip + len(status.split.rivals)
    yield _gauge("vip_holders", "Nodes that hold the VIP as this holder sees it; 0 on a backup.", held)
    yield _gauge(
        "released", "1 while this node has given the VIP up (split brain).", bool(status.split.released)
    )
    yield _gauge("strangers", "Strangers that advertise this virtual router id.", len(status.split.strangers))
    heard = {(peer.node,): float(peer.problem is None) for peer in status.peers}
    yield _gauges("peer_up", "1 while the agent of that node answers.", ("node",), heard)
    if status.clients.connections is not None:
        text = "Connections through the VIP: this node's own, or its holder's as far as they are known here."
        yield _gauge("vip_connections", text, status.clients.connections)
    quorum = {(each.service,): float(each.quorum) for each in status.etcd if each.quorum is not None}
    yield _gauges("etcd_quorum", "1 while an etcd service has a quorum.", ("service",), quorum)
    since = {(each.service,): each.since for each in status.etcd if each.quorum is not None}
    yield _gauges(
        "etcd_quorum_changed_seconds",
        "When etcd_quorum changed last, in seconds since the epoch.",
        ("service",),
        since,
    )


def _pools(status: Status) -> Iterator[Metric]:
    live = {(service,): float(count) for service, count in status.haproxy.live.items()}
    yield _gauges("backend_live", "Servers that haproxy finds live.", ("service",), live)
    servers = {(each.service, each.name): float(each.live) for each in status.haproxy.servers}
    yield _gauges("server_up", "1 while haproxy gives the server connections.", ("service", "server"), servers)
    ages = {(pool.service,): pool.age for pool in status.pools if pool.age is not None}
    yield _gauges("discovery_age_seconds", "Since discovery's last good answer.", ("service",), ages)


def _counted(counters: Counters) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    yield _counter("transitions", "VRRP transitions.", ("to", "cause"), counters.transitions)
    yield _counter("apply", "Applies by result.", ("result",), {(k,): n for k, n in counters.applies.items()})
    yield _counter("events", "Events by kind.", ("kind",), {(k,): n for k, n in counters.events.items()})
    yield _counter("decisions", "Decisions, the same or new.", (), {(): counters.decisions})
    ended = {(k,): n for k, n in counters.sessions_ended.items()}
    yield _counter("sessions_ended", "Sessions of haproxy that lbha ended, by cause.", ("cause",), ended)
    yield _counter("tickles", "Tickle ACKs sent to clients of the VIP.", (), {(): counters.tickles})
    total, buckets = 0, []
    for bound, count in zip((*map(str, CHECK_BUCKETS), "+Inf"), counters.checks, strict=True):
        total += count
        buckets.append((bound, total))
    yield HistogramMetricFamily(
        "lbha_check_seconds",
        "How long haproxy took to answer.",
        buckets=buckets,
        sum_value=counters.check_seconds,
    )


def _gauge(name: str, help_text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"lbha_{name}", help_text, value)


def _gauges(name: str, help_text: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"lbha_{name}", help_text, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family


def _counter(name: str, help_text: str, labels: Sequence[str], values: Mapping[_Labels, float]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"lbha_{name}", help_text, labels=labels)
    for each, value in values.items():
        family.add_metric(each, value)
    return family
