"""The longest that each fault of the drill, done to the holder, may take: computed, part by part. Pure.

Up to three waits lie between a fault and the VIP on another node:

- detection: until keepalived knows. What kills keepalived or the node itself needs none.
- election:  the backups wait down_timer_adverts × advert_interval for a holder that has fallen silent. One that
             says goodbye (priority 0: FAULT, a stop) is not waited for.
- skew:      the successor's (256 - priority) / 256 × advert_interval (RFC 9568, 6.1), for the node that waits
             longest of those that may be next while everything else is well.

Then clients may still meet servers that died with the node or alone, until haproxy leaves them out: `servers`.
Of a chain of waits each is taken at its longest, so a measured time is mostly shorter. What no timer governs
is not in it: a starved process, a disk, a switch that learns slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from lbha.forecast.waits import Wait, longest_skew, observed, removal, scripts, silence
from lbha.model import Cluster, Kind, Mode, Service
from lbha.split import ADVERTISED
from lbha.timing import ADVERT_LOOK, CONNECT, HAPROXY_DEADLINE, HAPROXY_INTERVAL, REPORT_FRESH, TICK


class Stage(StrEnum):
    """What is waited for."""

    DETECTION = "detection"
    ELECTION = "election"
    SKEW = "skew"
    SERVERS = "servers"


@dataclass(frozen=True, slots=True)
class Part:
    """At most `seconds`, and why."""

    stage: Stage
    seconds: float
    source: str


@dataclass(frozen=True, slots=True)
class Bound:
    """What a fault of that name leads to in that mode.

    `moves`: the VIP goes to another node. `vip`: seconds until it is there; 0 where it stays, None where nobody
    is there to take it. `clients`: the longest time (s) without a served request; None: no timer bounds it.
    """

    fault: str
    mode: Mode
    moves: bool
    parts: tuple[Part, ...]
    vip: float | None
    clients: float | None
    note: str = ""

    def of(self, stage: Stage) -> float:
        """The seconds of one stage."""
        return sum(part.seconds for part in self.parts if part.stage is stage)


def bounds(cluster: Cluster, mode: Mode) -> tuple[Bound, ...]:
    """For every fault that this cluster can have in that mode, in the drill's order."""
    service = observed(cluster)
    made = _Bounds(cluster, mode, service)
    return tuple(made.bound(fault) for fault in _RULES if made.can_be(fault))


class _Bounds:
    """The rules for one cluster, mode and service."""

    def __init__(self, cluster: Cluster, mode: Mode, service: Service) -> None:
        self._cluster, self._mode, self._service = cluster, mode, service
        self._agent = mode is Mode.AGENT
        self._silence = Part(Stage.ELECTION, *silence(cluster.failover))
        wait = longest_skew(cluster, mode)
        self._skew = Part(Stage.SKEW, *wait) if wait else None

    def can_be(self, fault: str) -> bool:
        """Whether there is what it breaks."""
        if fault.startswith("agent-") or fault == "drain":
            return self._agent
        if fault.startswith("apiserver-"):
            return self._service.kind is Kind.KUBE_APISERVER
        if fault.startswith("etcd-"):
            return any(service.kind is Kind.ETCD for service in self._cluster.services)
        return not fault.startswith("partition") or len(self._cluster.nodes) > 1

    def bound(self, fault: str) -> Bound:
        return _RULES[fault](self, fault)

    def _moved(
        self, fault: str, *parts: Part, served: bool = False, servers: bool = False, note: str = ""
    ) -> Bound:
        """The VIP goes to the successor after `parts` and its skew. `served`: the holder serves until then.
        `servers`: those on the holder's host are dead as well."""
        if self._skew is None:
            alone = "no other node takes the VIP"
            return Bound(fault, self._mode, False, (), None, 0.0 if served else None, alone)
        parts = (*parts, self._skew)
        vip = sum(part.seconds for part in parts)
        clients = 0.0 if served else vip
        if servers and (dead := self._dead_servers(vip)):
            parts, clients = (*parts, dead), clients + dead.seconds
        return Bound(fault, self._mode, True, parts, vip, clients, note)

    def _stays(self, fault: str, *parts: Part, note: str = "") -> Bound:
        clients = sum(part.seconds for part in parts)
        return Bound(fault, self._mode, False, parts, 0.0, clients, note)

    def _dead_servers(self, vip: float) -> Part | None:
        """After the VIP: every new connection may still meet a server that died with the holder's host."""
        backends = self._service.backends
        addresses = {address for node in self._cluster.nodes for address in node.addresses}
        if not isinstance(backends, str) and not addresses & {each.address for each in backends}:
            return None
        checks, how = removal(self._service.check, silent=True)
        left = checks - vip
        if left >= CONNECT:
            return Part(Stage.SERVERS, CONNECT, f"timeout connect {CONNECT:g} s, then marked down by `observe`")
        return Part(Stage.SERVERS, left, f"left out by checks: {how}, from the fault on") if left > 0 else None

    def _haproxy_kill(self, fault: str) -> Bound:
        why = "its connection ends; the next question is due by then (haproxy_watch)"
        return self._haproxy(fault, (HAPROXY_INTERVAL, why))

    def _haproxy_freeze(self, fault: str) -> Bound:
        why = f"a question each {HAPROXY_INTERVAL:g} s, no answer in {HAPROXY_DEADLINE:g} s (haproxy_watch)"
        return self._haproxy(fault, (HAPROXY_INTERVAL + HAPROXY_DEADLINE, why))

    def _haproxy(self, fault: str, agent: Wait) -> Bound:
        noticed = agent if self._agent else scripts(self._cluster.health)
        return self._moved(fault, Part(Stage.DETECTION, *noticed))

    def _silent(self, fault: str) -> Bound:
        return self._moved(fault, self._silence, servers=True)

    def _keepalived_stop(self, fault: str) -> Bound:
        return self._moved(fault, note="it says goodbye with priority 0")

    def _keepalived_kill(self, fault: str) -> Bound:
        until = "until the agent removes the stale VIP" if self._agent else "until keepalived runs again"
        return self._moved(fault, self._silence, served=True, note=f"the VIP stays behind: two holders {until}")

    def _drain(self, fault: str) -> Bound:
        return self._moved(fault, self._silence, served=True, note="make before break")

    def _partition(self, fault: str) -> Bound:
        until = "until the cut off side yields" if self._agent else "as long as it lasts"
        return self._moved(fault, self._silence, servers=True, note=f"two holders {until}")

    def _one_way(self, fault: str) -> Bound:
        if self._skew is None or not self._agent:
            note = "VRRP cannot settle it: two holders as long as it lasts"
            return Bound(fault, self._mode, True, (), None, None, note)
        second = self._silence.seconds + self._skew.seconds
        first_sign = max(ADVERT_LOOK, REPORT_FRESH - second)
        proof = Part(
            Stage.DETECTION,
            first_sign + ADVERTISED + ADVERT_LOOK + TICK,
            f"after the takeover: {first_sign:.2f} s until its last report is {REPORT_FRESH:g} s old and an "
            f"advert counts, adverts for {ADVERTISED:g} s, a look and a tick of {ADVERT_LOOK:g} s (split)",
        )
        return self._moved(fault, proof, self._silence, servers=True, note="two holders until one yields")

    def _apiserver_kill(self, fault: str) -> Bound:
        return self._stays(fault, note="refused connections go to another server at once (redispatch)")

    def _apiserver_freeze(self, fault: str) -> Bound:
        return self._stays(fault, Part(Stage.SERVERS, *removal(self._service.check, silent=True)))

    def _apiserver_error(self, fault: str) -> Bound:
        return self._stays(fault, Part(Stage.SERVERS, *removal(self._service.check, silent=False)))

    def _unready(self, fault: str) -> Bound:
        return self._stays(fault, note="it serves until haproxy leaves it out")

    def _etcd(self, fault: str) -> Bound:
        return self._stays(fault, note="writes to etcd wait for etcd's own election")

    def _quorum(self, fault: str) -> Bound:
        return self._stays(fault, note="pools stay open for reads; no write until etcd has a quorum")

    def _nothing(self, fault: str) -> Bound:
        return self._stays(fault, note="nothing moves")

    def _stress(self, fault: str) -> Bound:
        return self._stays(fault, note="nothing moves; a busy node answers later")


_RULES: dict[str, Callable[[_Bounds, str], Bound]] = {
    "haproxy-kill": _Bounds._haproxy_kill,
    "haproxy-freeze": _Bounds._haproxy_freeze,
    "keepalived-kill": _Bounds._keepalived_kill,
    "keepalived-stop": _Bounds._keepalived_stop,
    "apiserver-kill": _Bounds._apiserver_kill,
    "apiserver-freeze": _Bounds._apiserver_freeze,
    "apiserver-error": _Bounds._apiserver_error,
    "apiserver-unready": _Bounds._unready,
    "etcd-kill": _Bounds._etcd,
    "etcd-leader-kill": _Bounds._etcd,
    "etcd-quorum-loss": _Bounds._quorum,
    "link-down": _Bounds._silent,
    "power-off": _Bounds._silent,
    "partition": _Bounds._partition,
    "partition-one-way": _Bounds._one_way,
    "cpu-stress": _Bounds._stress,
    "agent-kill": _Bounds._nothing,
    "agent-freeze": _Bounds._nothing,
    "agent-restart": _Bounds._nothing,
    "drain": _Bounds._drain,
}
"""The faults of the drill (`lbha.lab.faults.KINDS`), in its order, and what each of them waits for."""
