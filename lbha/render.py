"""Cluster + backends -> the text of haproxy.cfg, keepalived.conf and lbha.nft. The only user of Jinja2; pure.

Equal input gives equal bytes: everything is sorted and nothing tells the time. Values reach a template only
as checked by `lbha.config` and `lbha.discovery`; an undefined name in an operator's own template is an
error, and nothing is HTML-escaped (`autoescape` would turn & into &amp; in a configuration).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jinja2

from lbha import haproxy_text, live
from lbha.errors import RenderError
from lbha.model import Backend, Cluster, Endpoint, Kind, Mode, Node, Paths, Pool, Pools, Rendered, Service
from lbha.priority import agent_terms, terms
from lbha.redirect import Redirect

FILES = {
    "haproxy.cfg": "haproxy/haproxy.cfg.j2",
    "keepalived.conf": "keepalived/keepalived.conf.j2",
    "lbha.nft": "nftables/lbha.nft.j2",
}
"""File -> its template, below `templates/` or the operator's `[templates] directory`."""

_DIGEST = "lbha-@digest@"
"""Stands in for the digest until the text is known."""


@dataclass(frozen=True, slots=True)
class _PoolView:
    """A pool as haproxy's template sees it. `port` is where haproxy listens."""

    service: Service
    port: int
    backends: tuple[Backend, ...]
    check_tls: str

    @property
    def has_fallback(self) -> bool:
        """Plain TCP services are checked by a connection already: a second, open pool would say the same."""
        return self.service.kind is not Kind.TCP


@dataclass(frozen=True, slots=True)
class _LocalCheck:
    """A track script for the backend that a service has on this node."""

    service: str
    arguments: str


def render(
    cluster: Cluster,
    node: Node,
    pools: Pools,
    interface: str,
    *,
    redirects: Sequence[Redirect] = (),
    load_state: bool = False,
    real_time: bool = True,
) -> Rendered:
    """The files of `node`, whose VIPs go on `interface`.

    For the services in `redirects` haproxy listens on another port, and lbha.nft sends new connections there;
    without redirects and `vrrp_filter` there is no lbha.nft.
    `load_state` makes haproxy read which servers are down from `state_file`, so that a reload sends nothing
    to a dead server (without: 9 requests in 0.3 s, measured). Only where that file exists: haproxy warns
    about a missing one. `real_time` gives VRRP a real-time priority, only where keepalived survives a reload
    with it (`Keepalived.survives_real_time`), and otherwise the best of the ordinary ones.

    Raises RenderError when a template is missing, broken, uses an undefined name, or a pool is empty.
    """
    for service in cluster.services:
        if not pools[service.name].backends:
            raise RenderError(f"services.{service.name}: no backends; an empty pool is never rendered")
    index = cluster.nodes.index(node)
    agent = cluster.health.mode is Mode.AGENT
    local_checks = tuple(
        _LocalCheck(service.name, _check_arguments(service, own))
        for service in cluster.services
        if (own := local_backend(node, pools[service.name])) is not None
    )
    if agent:
        sizes = agent_terms(len(cluster.nodes), failback=cluster.failover.failback)
    else:
        sizes = terms(len(cluster.nodes), len(cluster.services), failback=cluster.failover.failback)
    if agent or not sizes.local:
        local_checks = ()
    family = ip_address(node.address).version
    ports = {redirect.service: redirect.to for redirect in redirects}
    context = {
        "cluster": cluster,
        "node": node,
        "interface": interface,
        "paths": cluster.paths,
        "health": cluster.health,
        "agent": agent,
        "track": track_program(cluster.paths),
        "terms": sizes,
        "priority": sizes.base(index, len(local_checks)),
        "local_checks": local_checks,
        "redirects": redirects,
        "pools": tuple(
            _PoolView(
                service,
                ports.get(service.name, service.port),
                pools[service.name].backends,
                _haproxy_tls(service, cluster.paths),
            )
            for service in cluster.services
        ),
        "peers": tuple(
            address
            for peer in cluster.nodes
            if peer != node
            for address in peer.addresses
            if ip_address(address).version == family
        ),
        "vrrp_peers": tuple(
            sorted(
                (address for peer in cluster.nodes if peer != node for address in peer.addresses),
                key=lambda address: (ip_address(address).version, int(ip_address(address))),
            )
        ),
        "state_file": state_file(cluster.paths) if load_state else None,
        "real_time": real_time,
        "slots": f"{haproxy_text.SLOT} 1-{live.SLOTS}",
        "digest": _DIGEST,
    }
    environment = _environment(cluster.templates)
    files: dict[str, str] = {}
    digests: dict[str, str] = {}
    for name, template in FILES.items():
        if name == "lbha.nft" and not redirects and not cluster.failover.vrrp_filter:
            continue
        text = _render_one(environment, template, context)
        # A running haproxy changes its servers without a reload, so its digest stands for all the rest.
        fixed = haproxy_text.structure(text) if name == "haproxy.cfg" else text
        digests[name] = hashlib.sha256(fixed.encode()).hexdigest()[:12]
        files[name] = text.replace(_DIGEST, f"lbha-{digests[name]}")
    return Rendered(files, digests)


def track_program(paths: Paths) -> str:
    """`lbha-track`, which lies beside the real `lbha`, wherever a link to that may be."""
    return str(Path(paths.lbha).resolve().parent / "lbha-track")


def local_backend(node: Node, pool: Pool) -> Endpoint | None:
    """Where the service of `pool` listens on this very node; None when it has no backend here."""
    for backend in pool.backends:
        if backend.endpoint.address in node.addresses:
            return backend.endpoint
    return None


def state_file(paths: Paths) -> str:
    """Where `lbha apply` saves the servers' states just before haproxy reloads."""
    return f"{paths.state_dir}/haproxy.state"


def haproxy_crt(service: Service, paths: Paths) -> str | None:
    """The file that haproxy reads a client certificate and its key from; None where there is none.

    haproxy finds the key beside the certificate as CERT.key, or X.key for X.crt (ssl-load-extra-del-ext),
    or in the same file. Otherwise `lbha apply` makes one file of the two, under {state_dir}/tls.
    """
    tls = service.tls
    if tls is None or tls.cert is None or tls.key is None:
        return None
    # del-ext takes .crt away before it looks: X.crt with X.crt.key would not be found.
    beside = tls.cert[: -len(".crt")] + ".key" if tls.cert.endswith(".crt") else f"{tls.cert}.key"
    if tls.key in (tls.cert, beside):
        return tls.cert
    return f"{paths.state_dir}/tls/{service.name}.pem"


def template_root() -> Path:
    """The templates that come with lbha: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def _environment(own_templates: str | None) -> jinja2.Environment:
    roots = [str(template_root())]
    if own_templates:
        _prove_used(Path(own_templates))
        roots.insert(0, own_templates)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(roots),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        bracketed=lambda address: f"[{address}]" if ":" in address else address,
        family=lambda address: "ip6" if ":" in address else "ip",
        host_prefix=lambda address: f"{address}/{128 if ':' in address else 32}",
        ms=lambda seconds: f"{round(seconds * 1000)}ms",
    )
    return environment


def _prove_used(directory: Path) -> None:
    """Jinja2 passes over a directory that is missing, unreadable or laid out otherwise: lbha's own templates
    would silently take the place of the operator's. RenderError then."""
    try:
        used = directory.is_dir() and any((directory / template).is_file() for template in FILES.values())
    except OSError as error:
        raise RenderError(f'templates.directory = "{directory}": {error.strerror or error}') from None
    if not used:
        raise RenderError(
            f'templates.directory = "{directory}" holds none of {", ".join(FILES.values())}; '
            "put your template there, or remove the key"
        )


def _render_one(environment: jinja2.Environment, template: str, context: dict[str, Any]) -> str:
    try:
        text = environment.get_template(template).render(context)
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"{error.filename or template}: line {error.lineno}: {error.message}") from None
    except jinja2.TemplateNotFound as error:
        raise RenderError(f"template {error} is missing; look into [templates] directory") from None
    except UnicodeDecodeError:
        raise RenderError(f"template {template} is not UTF-8") from None
    except OSError as error:
        raise RenderError(f"template {template}: {error.strerror or error}") from None
    except Exception as error:
        # An operator's template can raise anything: 1 / 0, a loop over a number, an undefined name.
        raise RenderError(f"template {template}: {type(error).__name__}: {error}") from None
    # haproxy refuses a file without a final newline.
    return text if text.endswith("\n") else text + "\n"


def _haproxy_tls(service: Service, paths: Paths) -> str:
    """The part of haproxy's server line that makes its checks speak TLS."""
    if service.kind is Kind.TCP or (service.kind is Kind.ETCD and service.tls is None):
        return ""
    tls = service.tls
    words = [" check-ssl"]
    words += ["verify required", f"ca-file {tls.ca}"] if tls and tls.ca else ["verify none"]
    crt = haproxy_crt(service, paths)
    if crt:
        words.append(f"crt {crt}")
    return " ".join(words)


def _check_arguments(service: Service, endpoint: Endpoint) -> str:
    """What follows `lbha check` in a track script: complete, so that no later edit of lbha.toml can fail it."""
    words = [service.name, f"--kind {service.kind}", f"--address {endpoint}"]
    tls = service.tls
    for option, value in (("ca", tls and tls.ca), ("cert", tls and tls.cert), ("key", tls and tls.key)):
        if value:
            words.append(f"--{option} {value}")
    return " ".join(words)
