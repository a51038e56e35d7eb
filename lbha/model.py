"""The words of lbha as frozen values. Everything else takes and returns these; nothing here does anything.

Times are seconds (float) unless the name ends in `_ms`. Addresses are canonical IP literals (RFC 5952 for
IPv6), never host names: haproxy resolves names while it parses, and a silent DNS server held `haproxy -c`
for 24.6 s (measured).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path


class Kind(StrEnum):
    """A service's profile: it sets ports, checks and fallback."""

    KUBE_APISERVER = "kube-apiserver"
    ETCD = "etcd"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """IPv4 before IPv6, then by number: 10.0.0.9 comes before 10.0.0.10."""
        ip = ip_address(self.address)
        return ip.version, int(ip), self.port


@dataclass(frozen=True, slots=True)
class Backend:
    """One server of a service, under the name haproxy shows for it."""

    name: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Node:
    """A host that runs haproxy and keepalived. `addresses` holds one of each family that a VIP has."""

    name: str
    addresses: tuple[str, ...]

    @property
    def address(self) -> str:
        """The first address: the one VRRP adverts leave from."""
        return self.addresses[0]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) for talking to a service's backends. `ca` alone verifies; `cert` and `key` come together."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class CheckTimes:
    """haproxy's health check of one server: seconds between checks, checks until up or down."""

    interval: float
    fast_interval: float
    timeout: float
    rise: int
    fall: int


class Listen(StrEnum):
    """How haproxy gets the connections to VIP:port."""

    VIP = "vip"
    """It listens there itself."""
    REDIRECT = "redirect"
    """It listens on VIP:redirect_port, and nftables sends them there: another program has 0.0.0.0:port."""
    AUTO = "auto"
    """Each node sees for itself which it must be (`lbha.redirect`)."""


@dataclass(frozen=True, slots=True)
class Service:
    """What clients reach at VIP:port.

    `backends` says where servers come from: "nodes", "etcd-env:FILE", "etcd-members", "kubernetes",
    "dns-srv:NAME", or a tuple of endpoints.
    """

    name: str
    kind: Kind
    port: int
    target_port: int
    backends: str | tuple[Endpoint, ...]
    balance: str
    check: CheckTimes
    tls: Tls | None
    redirect_port: int
    listen: Listen = Listen.AUTO
    token_file: str | None = None

    @property
    def bind_ports(self) -> tuple[int, ...]:
        """Where haproxy may listen on the VIP for the clients of `port`."""
        match self.listen:
            case Listen.VIP:
                return (self.port,)
            case Listen.REDIRECT:
                return (self.redirect_port,)
            case Listen.AUTO:
                return (self.port, self.redirect_port)


@dataclass(frozen=True, slots=True)
class Failover:
    """VRRP timing. A silent holder is replaced after down_timer_adverts × advert_interval + skew (RFC 9568).

    `vrrp_filter`: nftables drops VRRP (protocol 112) from whoever is not a peer.
    `handover_rate`: clients a second that are told that their connection through the VIP is dead.
    """

    profile: str
    advert_interval: float
    down_timer_adverts: int
    failback: bool
    handover_rate: int
    vrrp_filter: bool = False


class Mode(StrEnum):
    """Who judges: the agent, or track scripts alone."""

    AGENT = "agent"
    SCRIPT = "script"


@dataclass(frozen=True, slots=True)
class Health:
    """How keepalived learns of this node's health. `interval` is in whole seconds (keepalived 2.2.7).

    `quarantine` (s): a node that has booted takes over in this time only when nobody else can serve.
    """

    mode: Mode
    interval: int
    rise: int
    fall: int
    quarantine: float


@dataclass(frozen=True, slots=True)
class Peers:
    """The channel between agents: mutual TLS on each node's address. Off where a file is missing."""

    port: int
    ca: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class Paths:
    """Every file, socket and pid file, so that many nodes can live on one machine.

    `state_dir` outlives a reboot; `run_dir` (memory) holds what the agent and keepalived tell each other.
    """

    lbha: str = "/usr/bin/lbha"
    state_dir: str = "/var/lib/lbha"
    run_dir: str = "/run/lbha"
    haproxy_cfg: str = "/etc/haproxy/haproxy.cfg"
    haproxy_socket: str = "/run/haproxy/admin.sock"
    haproxy_master_socket: str = "/run/haproxy-master.sock"
    keepalived_conf: str = "/etc/keepalived/keepalived.conf"
    keepalived_pid: str = "/run/keepalived.pid"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The one file, checked and with every default filled in."""

    name: str
    vips: tuple[str, ...]
    interface: str | None
    virtual_router_id: int
    nodes: tuple[Node, ...]
    services: tuple[Service, ...]
    failover: Failover
    health: Health
    metrics: Endpoint
    peers: Peers
    paths: Paths = field(default_factory=Paths)
    templates: str | None = None

    def node(self, name: str) -> Node:
        """The node of that name; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Pool:
    """The backends of one service as discovery left them.

    `age` is 0.0 for a fresh answer, the seconds since the last good one when `error` says why there is no
    fresh one, and None when there never was one and the cluster's own nodes stand in.
    """

    service: str
    backends: tuple[Backend, ...]
    age: float | None = 0.0
    error: str | None = None


Pools = Mapping[str, Pool]
"""Service name to its pool."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One node's files by name (`haproxy.cfg`, `keepalived.conf`, and `lbha.nft` where it needs rules), and the
    digest that each one carries.

    A digest (12 hex digits) lets the running daemon prove which file it runs: haproxy shows it as
    `Description` in `show info`, keepalived as `Router ID` in its data dump, the kernel as each rule's comment.
    haproxy.cfg's is that of its structure, without the servers: those are proved one by one (`lbha.live`).
    """

    files: Mapping[str, str]
    digests: Mapping[str, str]

    @staticmethod
    def targets(paths: Paths) -> dict[str, Path]:
        """Where each file belongs on a node."""
        return {
            "haproxy.cfg": Path(paths.haproxy_cfg),
            "keepalived.conf": Path(paths.keepalived_conf),
            "lbha.nft": Path(paths.state_dir) / "lbha.nft",
        }
