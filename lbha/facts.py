"""What the agent sees and what it concludes, as frozen values: facts -> Observation -> Decision -> Status.

Moments named `at` or `since` are seconds since the epoch (for people and for other hosts); `Observation.at` is
of the monotonic clock (for durations). All of them cross the agent's sockets as JSON (msgspec).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbha.model import Endpoint


@dataclass(frozen=True, slots=True)
class Server:
    """One server as haproxy sees it (`show stat`). `status` is haproxy's word: UP, DOWN, MAINT, DRAIN …;
    `reason` its last check's, `since` when the status last changed."""

    service: str
    name: str
    endpoint: Endpoint
    status: str
    reason: str
    since: float
    sessions: int

    @property
    def live(self) -> bool:
        """It gets new connections: UP, or UP on its way down, but neither DRAIN nor MAINT."""
        return self.status.startswith("UP") or self.status == "no check"


@dataclass(frozen=True, slots=True)
class HaproxyFacts:
    """`problem` says why haproxy cannot serve; None when it answers in time. `live` counts each service's live
    servers in the checked pool; `servers` are all of them, without spare slots."""

    problem: str | None = "not asked yet"
    pid: int | None = None
    live: Mapping[str, int] = field(default_factory=dict)
    servers: tuple[Server, ...] = ()


@dataclass(frozen=True, slots=True)
class VrrpFacts:
    """keepalived's own word: `state` is INIT, BACKUP, MASTER or FAULT; both None while unknown."""

    state: str | None = None
    effective_priority: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One member of an etcd service. `leader` tells that it knows one: it has a quorum. `alarms` are what etcd
    has raised, on all members alike: NOSPACE, CORRUPT."""

    service: str
    endpoint: Endpoint
    leader: bool
    learner: bool
    problem: str | None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EtcdFacts:
    """`quorum` is None while no member answers; `since` is when it changed last. `leaderless`: since when those
    that answer have known no leader; the quorum counts as lost only after a while (`lbha.quorum`)."""

    service: str
    quorum: bool | None
    since: float
    members: tuple[EtcdMember, ...]
    leaderless: float | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator wants the VIP elsewhere. `until` is None for an open end."""

    since: float
    until: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one decision rests on. `at` is monotonic; `local` says for each service that has a backend on
    this very node whether haproxy finds it live."""

    at: float
    haproxy: HaproxyFacts
    local: Mapping[str, bool]
    holds_vip: bool
    drained: bool
    quarantined: bool


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the priority: what it is worth, whether it is earned, and why."""

    name: str
    worth: int
    earned: bool
    why: str

    @property
    def points(self) -> int:
        """What it adds now."""
        return self.worth if self.earned else 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Not `up` is FAULT. `score` is added to `base`, which stands in keepalived.conf; `terms` explain both."""

    up: bool
    score: int
    base: int
    terms: tuple[Term, ...]
    why: str

    @property
    def priority(self) -> int:
        """The effective priority that keepalived must show (1..254); 0 in FAULT."""
        return min(254, max(1, self.base + self.score)) if self.up else 0


@dataclass(frozen=True, slots=True)
class Lease:
    """Who is active: the host name in a component's lease in kube-system, empty when nobody has it. `renewed`
    is of its clock; the lease counts for `duration` s after it."""

    component: str
    holder: str
    renewed: float
    duration: float


@dataclass(frozen=True, slots=True)
class ControlPlaneFacts:
    """The leases, as the apiserver of this node tells them; `problem` says why it does not. `service` is the
    kube-apiserver service that was asked. For people alone: no decision rests on it."""

    service: str = ""
    leases: tuple[Lease, ...] = ()
    problem: str | None = "not asked yet"


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """A pool as discovery left it: see `lbha.model.Pool` for `age` and `error`."""

    service: str
    backends: int
    age: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """The last apply: its result ("applied", "unchanged", "held", "refused") and what it said."""

    at: float
    result: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one agent tells the others. `config` is the sha256 of its lbha.toml without its files' places;
    `stale`: it has the VIP, but the keepalived that put it there is down; `components`: which of
    kube-controller-manager and kube-scheduler answer on the node, None unknown."""

    node: str
    at: float
    version: str
    config: str
    holds_vip: bool
    decision: Decision
    drained: bool
    vrrp: VrrpFacts
    stale: bool = False
    components: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: its last report, when it came, and why there is none now. `report` None: never one.
    `silent`: since when nothing at all has come from its host, not even a refusal; None when something does."""

    node: str
    report: Report | None = None
    heard: float | None = None
    problem: str | None = "not asked yet"
    silent: float | None = None


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who advertises this cluster's virtual router id without being one of its nodes: `source`, what it last
    said, and when."""

    source: str
    priority: int
    addresses: tuple[str, ...]
    at: float


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """`rivals` hold the VIP beside this node, for longer than a takeover takes; `released` says why this node
    has given it up, None when it has not; `since` when either began."""

    rivals: tuple[str, ...] = ()
    released: str | None = None
    since: float | None = None
    strangers: tuple[Stranger, ...] = ()


@dataclass(frozen=True, slots=True)
class OldWorker:
    """A haproxy worker that a reload left behind. `age` in seconds."""

    pid: int
    age: float
    sessions: int


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """Connections through the VIP: on its holder those that it carries, elsewhere those of `holder` that are
    known and told if the VIP comes here. `dropped` more are not told. None: not known."""

    connections: int | None = None
    holder: str | None = None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """This node, whole: what `lbha status` shows. `refused` says why the present lbha.toml is not in force;
    `peers_off` why agents cannot hear each other; `lag_ms` is the worst lateness of the loop in the last
    minute; `quarantined` is how many more seconds."""

    cluster: str
    vips: tuple[str, ...]
    report: Report
    started: float
    haproxy: HaproxyFacts
    etcd: tuple[EtcdFacts, ...]
    pools: tuple[PoolFacts, ...]
    peers: tuple[Peer, ...]
    peers_off: str | None
    drain: Drain | None
    quarantined: float
    applied: Applied | None
    refused: str | None
    old_workers: tuple[OldWorker, ...]
    lag_ms: float
    clients: ClientFacts = ClientFacts()
    split: SplitFacts = SplitFacts()
    control_plane: ControlPlaneFacts = ControlPlaneFacts()
