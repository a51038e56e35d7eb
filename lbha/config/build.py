"""The whole document -> Cluster. The first mistake ends it."""

from __future__ import annotations

from lbha.config import values
from lbha.config.addresses import endpoint, nodes, vips
from lbha.config.collisions import refuse_collisions
from lbha.config.document import ABSENT, Document, refuse_unprintable, suggest, under
from lbha.config.schema import (
    SECTIONS,
    RawCluster,
    RawFailover,
    RawHealth,
    RawMetrics,
    RawPaths,
    RawPeers,
    RawTemplates,
    section,
)
from lbha.config.services import services
from lbha.model import Cluster, Endpoint, Failover, Health, Mode, Paths, Peers

PROFILES = {"balanced": (0.1, 6), "fast": (0.1, 3), "patient": (1.0, 3)}
"""Profile -> (advert_interval in s, down_timer_adverts). 0.1 s × 3 made two holders when a node stood still
for 1 s; six missed adverts did not (measured), hence the default."""


def build(document: Document, program: str | None) -> Cluster:
    """The document checked and with every default filled in. Raises ConfigError.

    `program` is the path of lbha itself, where the file does not name one.
    """
    refuse_unprintable(document)
    for key in document.tables:
        if key not in SECTIONS:
            document.fail(under("", key), ABSENT, "unknown section", suggest(key, SECTIONS))
    if "cluster" not in document.tables:
        document.fail("cluster", ABSENT, "missing", 'write [cluster] with name = "…" and vip = "…"')
    raw = section(document, "cluster", RawCluster)
    values.name(document, "cluster.name", raw.name)
    own_vips = vips(document, raw)
    own_nodes = nodes(document, own_vips)
    metrics = _metrics(document)
    peers = _peers(document)
    templates = section(document, "templates", RawTemplates).directory
    if templates is not None:
        values.path(document, "templates.directory", templates)
    cluster = Cluster(
        name=raw.name,
        vips=own_vips,
        interface=_interface(document, raw.interface),
        virtual_router_id=_virtual_router_id(document, raw),
        nodes=own_nodes,
        services=services(document, own_vips, own_nodes, metrics, peers),
        failover=_failover(document),
        health=_health(document),
        metrics=metrics,
        peers=peers,
        paths=_paths(document, program),
        templates=templates,
    )
    refuse_collisions(document, cluster)
    return cluster


def default_virtual_router_id(name: str) -> int:
    """A stable hash of the cluster's name, 1..255 (RFC 9568, 5.2.3)."""
    import hashlib

    # What is no UTF-8 on a command line is refused as a name, later and in a line.
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big") % 255 + 1


def _virtual_router_id(document: Document, raw: RawCluster) -> int:
    if raw.virtual_router_id is None:
        return default_virtual_router_id(raw.name)
    return values.number(document, "cluster.virtual_router_id", raw.virtual_router_id, 1, 255)


def _interface(document: Document, name: str | None) -> str | None:
    if name is not None and not values.is_interface(name):
        document.fail(
            "cluster.interface",
            name,
            "not an interface name",
            'write at most 15 letters, digits, ".", "_" or "-", such as "eth0"',
        )
    return name


def _failover(document: Document) -> Failover:
    raw = section(document, "failover", RawFailover)
    if raw.profile not in PROFILES:
        document.fail("failover.profile", raw.profile, "unknown profile", suggest(raw.profile, PROFILES))
    interval, adverts = PROFILES[raw.profile]
    if raw.advert_interval is not None:
        # 12 bits of centiseconds: RFC 9568, 5.2.7.
        key = "failover.advert_interval"
        interval = values.seconds(document, key, raw.advert_interval, 0.01, 40.95, per_second=100)
    if raw.down_timer_adverts is not None:
        adverts = values.number(document, "failover.down_timer_adverts", raw.down_timer_adverts, 1, 100)
    rate = values.number(document, "failover.handover_rate", raw.handover_rate, 10, 100_000)
    return Failover(raw.profile, interval, adverts, raw.failback, rate, raw.vrrp_filter)


def _health(document: Document) -> Health:
    raw = section(document, "health", RawHealth)
    modes = [mode.value for mode in Mode]
    if raw.mode not in modes:
        document.fail("health.mode", raw.mode, "unknown mode", suggest(raw.mode, modes))
    for field in ("interval", "rise", "fall"):
        values.number(document, f"health.{field}", getattr(raw, field), 1, 60)
    quarantine = raw.quarantine and values.seconds(
        document, "health.quarantine", raw.quarantine, 0, 3600, per_second=1000
    )
    return Health(Mode(raw.mode), raw.interval, raw.rise, raw.fall, quarantine)


def _peers(document: Document) -> Peers:
    raw = section(document, "peers", RawPeers)
    values.number(document, "peers.port", raw.port, 1, 65535)
    for field in ("ca", "cert", "key"):
        values.path(document, f"peers.{field}", getattr(raw, field))
    return Peers(raw.port, raw.ca, raw.cert, raw.key)


def _metrics(document: Document) -> Endpoint:
    raw = section(document, "metrics", RawMetrics)
    found = endpoint(document, "metrics.address", raw.address, None)
    if not found.address.startswith("127.") and found.address != "::1":
        # The same file lies on every node: no other address is on each, and haproxy dies of one it cannot bind.
        document.fail(
            "metrics.address", raw.address, "not a loopback address", 'write such as "127.0.0.1:8404"'
        )
    return found


def _paths(document: Document, program: str | None) -> Paths:
    raw = section(document, "paths", RawPaths)
    given: dict[str, str] = {}
    for field in RawPaths.__struct_fields__:
        value = getattr(raw, field)
        if value is not None:
            longest = values.SOCKET_MAX if field.endswith("_socket") else values.PATH_MAX
            longest = values.RUN_DIR_MAX if field == "run_dir" else longest
            given[field] = values.path(document, f"paths.{field}", value, longest=longest)
    if "lbha" not in given and program is not None:
        # keepalived takes a script that it cannot run for a healthy node: never guess another path.
        given["lbha"] = values.path(document, "paths.lbha", program)
    return Paths(**given)
