"""[services.NAME]: what clients reach on the VIP, and where its servers come from."""

from __future__ import annotations

from lbha.config import values
from lbha.config.addresses import endpoint
from lbha.config.document import ABSENT, Document, suggest, under
from lbha.config.schema import RawCheck, RawService, RawTls, convert
from lbha.model import CheckTimes, Endpoint, Kind, Listen, Node, Peers, Service, Tls

RESERVED_SERVICES = ("haproxy", "holder")
"""`lbha check` gives these names a meaning of their own."""

BALANCES = ("leastconn", "roundrobin", "static-rr", "first", "source", "random")

MAX_BACKENDS = 10_000
"""What discovery accepts from a source as well."""

_CHECKS = {
    Kind.KUBE_APISERVER: CheckTimes(interval=0.5, fast_interval=0.1, timeout=2.0, rise=2, fall=3),
    Kind.ETCD: CheckTimes(interval=1.0, fast_interval=0.5, timeout=2.0, rise=1, fall=3),
    Kind.TCP: CheckTimes(interval=1.0, fast_interval=0.5, timeout=1.0, rise=2, fall=3),
}
"""2 s is above the 1.0 s that an etcd without a leader takes to answer (measured)."""

REDIRECT_OFFSET = 10_000
"""What is added to a port (above 55535: taken from it) for its `redirect_port`."""

_PORTS = {Kind.KUBE_APISERVER: 6443, Kind.ETCD: 2379}

_SOURCES = ("nodes", "etcd-members", "kubernetes", "etcd-env:FILE", "dns-srv:NAME")

_SOURCE_KINDS = {"etcd-env": Kind.ETCD, "etcd-members": Kind.ETCD, "kubernetes": Kind.KUBE_APISERVER}


def services(
    document: Document, vips: tuple[str, ...], nodes: tuple[Node, ...], metrics: Endpoint, peers: Peers
) -> tuple[Service, ...]:
    """Every service in the file's order, each with a port of its own on the VIP."""
    table = document.tables.get("services")
    cure = 'write [services.apiserver] with kind = "kube-apiserver"'
    if table is None:
        document.fail("services", ABSENT, "missing", cure)
    if not isinstance(table, dict):
        document.fail("services", table, "not a table", cure)
    if not table:
        document.fail("services", ABSENT, "no services", cure)
    found: list[Service] = []
    own_vips = frozenset(vips)
    ports = {peers.port: "peers.port", metrics.port: "metrics.address"}
    for name, value in table.items():
        key = under("services", name)
        service = _service(document, key, name, value)
        owner = ports.setdefault(service.port, f"{key}.port")
        if owner != f"{key}.port":
            document.fail(
                f"{key}.port", service.port, f"already taken by {owner}", "give each its own port on the VIP"
            )
        _refuse_loops(document, key, service, own_vips, nodes, metrics)
        if service.backends == "nodes" and service.target_port == peers.port:
            document.fail("peers.port", peers.port, f"is where {key} has its servers", "choose another port")
        found.append(service)
    _refuse_taken_redirect_ports(document, found, ports, nodes)
    return tuple(found)


def _refuse_taken_redirect_ports(
    document: Document, services: list[Service], ports: dict[int, str], nodes: tuple[Node, ...]
) -> None:
    """haproxy may have to listen on VIP:redirect_port, so nothing else of the file may be there on a node."""
    taken = dict(ports)
    here = {address for node in nodes for address in node.addresses}
    for service in services:
        key = under("services", service.name)
        if service.backends == "nodes":
            taken.setdefault(service.target_port, f"{key}.target_port")
        elif not isinstance(service.backends, str):
            for each in service.backends:
                if each.address in here:
                    taken.setdefault(each.port, f"{key}.backends")
    for service in services:
        if service.listen is Listen.VIP:
            continue
        key = f"{under('services', service.name)}.redirect_port"
        owner = taken.setdefault(service.redirect_port, key)
        if owner != key:
            document.fail(
                key,
                service.redirect_port,
                f"already taken by {owner}",
                'choose another, or write listen = "vip" where nothing else has the port of the service',
            )


def _service(document: Document, key: str, name: str, value: object) -> Service:
    # 32: `local_NAME` names a track script, and `NAME.open` a backend.
    values.name(document, key, name, longest=32, lower=True)
    if name in RESERVED_SERVICES:
        document.fail(key, ABSENT, f'"{name}" is what lbha check calls a check of its own', "choose another")
    raw = convert(document, key, value, RawService)
    kinds = [kind.value for kind in Kind]
    if raw.kind not in kinds:
        document.fail(f"{key}.kind", raw.kind, "unknown kind", suggest(raw.kind, kinds))
    kind = Kind(raw.kind)
    port = raw.port if raw.port is not None else _PORTS.get(kind)
    if port is None:
        document.fail(f"{key}.port", ABSENT, "missing", f'kind "{kind}" has no port of its own: write port')
    values.number(document, f"{key}.port", port, 1, 65535)
    target_port = port
    if raw.target_port is not None:
        target_port = values.number(document, f"{key}.target_port", raw.target_port, 1, 65535)
    redirect_port = port + REDIRECT_OFFSET if port + REDIRECT_OFFSET <= 65535 else port - REDIRECT_OFFSET
    if raw.redirect_port is not None:
        redirect_port = values.number(document, f"{key}.redirect_port", raw.redirect_port, 1, 65535)
    ways = [way.value for way in Listen]
    if raw.listen not in ways:
        document.fail(f"{key}.listen", raw.listen, "unknown way to listen", suggest(raw.listen, ways))
    if raw.balance not in BALANCES:
        document.fail(f"{key}.balance", raw.balance, "unknown algorithm", suggest(raw.balance, BALANCES))
    backends = _backends(document, f"{key}.backends", raw.backends, kind, target_port)
    if raw.token_file is not None:
        if backends != "kubernetes":
            document.fail(
                f"{key}.token_file",
                raw.token_file,
                'only backends = "kubernetes" reads a token',
                "remove it, or change backends",
            )
        values.path(document, f"{key}.token_file", raw.token_file)
    return Service(
        name=name,
        kind=kind,
        port=port,
        target_port=target_port,
        backends=backends,
        balance=raw.balance,
        check=_check(document, f"{key}.check", raw.check, _CHECKS[kind]),
        tls=_tls(document, f"{key}.tls", raw.tls, kind),
        redirect_port=redirect_port,
        listen=Listen(raw.listen),
        token_file=raw.token_file,
    )


def _backends(
    document: Document, key: str, value: str | list[str], kind: Kind, target_port: int
) -> str | tuple[Endpoint, ...]:
    if isinstance(value, list):
        if not value:
            document.fail(key, value, "an empty list", 'list the servers, or write "nodes"')
        if len(value) > MAX_BACKENDS:
            document.fail(key, ABSENT, f"{len(value)} servers", f"list at most {MAX_BACKENDS}")
        endpoints = [endpoint(document, key, item, target_port) for item in value]
        values.unique(document, key, [str(each) for each in endpoints])
        return tuple(sorted(endpoints, key=lambda each: each.sort_key))
    source, colon, argument = value.partition(":")
    if value not in _SOURCES[:3] and not (colon and source in ("etcd-env", "dns-srv")):
        document.fail(key, value, "unknown source", suggest(value, _SOURCES, more="or a list of addresses"))
    wanted = _SOURCE_KINDS.get(source, kind)
    if wanted is not kind:
        document.fail(
            key, value, f'goes with kind "{wanted}", not "{kind}"', "list the servers, or change kind"
        )
    if source == "etcd-env":
        values.path(document, key, argument)
    if source == "dns-srv" and not _is_dns_name(argument):
        document.fail(key, value, "not a DNS name", 'write such as "dns-srv:_etcd-server._tcp.example.com"')
    return value


def _is_dns_name(text: str) -> bool:
    """RFC 1035, 2.3.4: labels of 1 to 63 characters, 253 in all; "_" as service names have it (RFC 2782)."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(
        values.is_word(label, "-_", 63) and label[0] != "-" and label[-1] != "-" for label in labels
    )


def _refuse_loops(
    document: Document,
    key: str,
    service: Service,
    vips: frozenset[str],
    nodes: tuple[Node, ...],
    metrics: Endpoint,
) -> None:
    """haproxy must not be its own server: neither through a VIP, of whatever port, nor as its own exporter."""
    if isinstance(service.backends, str):
        on_a_node = any(metrics.address in node.addresses for node in nodes)
        if service.backends == "nodes" and metrics.port == service.target_port and on_a_node:
            document.fail(
                "metrics.address", str(metrics), f"is where {key} has a server", "choose another port"
            )
        return
    for each in service.backends:
        if each.address in vips:
            document.fail(f"{key}.backends", str(each), "is the VIP itself", "list the servers behind it")
        if each == metrics:
            document.fail(f"{key}.backends", str(each), "is metrics.address", "choose another port there")


def _check(document: Document, key: str, raw: RawCheck, default: CheckTimes) -> CheckTimes:
    def time(field: str) -> float:
        given = getattr(raw, field)
        if given is None:
            return float(getattr(default, field))
        return values.seconds(document, f"{key}.{field}", given, 0.01, 3600, per_second=1000)

    def count(field: str) -> int:
        given = getattr(raw, field)
        return (
            int(getattr(default, field))
            if given is None
            else values.number(document, f"{key}.{field}", given, 1, 100)
        )

    return CheckTimes(time("interval"), time("fast_interval"), time("timeout"), count("rise"), count("fall"))


def _tls(document: Document, key: str, raw: RawTls | None, kind: Kind) -> Tls | None:
    if raw is None:
        return None
    if kind is Kind.TCP:
        document.fail(key, ABSENT, 'kind "tcp" is checked by a plain connection', "remove tls, or change kind")
    for field in ("ca", "cert", "key"):
        value = getattr(raw, field)
        if value is not None:
            values.path(document, f"{key}.{field}", value)
    if (raw.cert is None) != (raw.key is None):
        missing = "key" if raw.key is None else "cert"
        document.fail(f"{key}.{missing}", ABSENT, "missing", "cert and key come together")
    if raw.ca is None and raw.cert is None:
        document.fail(key, ABSENT, "empty", "write ca, or cert and key, or all three")
    return Tls(raw.ca, raw.cert, raw.key)
