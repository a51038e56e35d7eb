"""What a cluster's own files say about it: an etcd member's environment file, a kubeconfig. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from lbha.config.document import shown
from lbha.discovery.etcd_env import parse_env
from lbha.discovery.hosts import host_and_port
from lbha.errors import ConfigError, DiscoveryError
from lbha.model import Tls


@dataclass(frozen=True, slots=True)
class FoundEtcd:
    """Members by name with their host, an address or a host name; the clients' port; files for the checks."""

    members: Mapping[str, str]
    port: int
    tls: Tls | None


@dataclass(frozen=True, slots=True)
class FoundApiserver:
    """Where clients of the apiserver go today, and files for the checks."""

    host: str
    port: int
    tls: Tls | None


def etcd_env(text: str, source: str) -> FoundEtcd:
    """Of an etcd member's environment file. Raises ConfigError that names `source` and the variable."""
    try:
        values = parse_env(text)
        members = _members(values.get("ETCD_INITIAL_CLUSTER", ""))
        urls = _listed(values.get("ETCD_ADVERTISE_CLIENT_URLS", ""))
        outside = [(url, port) for url in urls for host, port in [host_and_port(url)] if not _is_loopback(host)]
    except DiscoveryError as error:
        raise ConfigError(f"{source}: {error}") from None
    url, port = (*outside, *((url, 2379) for url in urls), ("", 2379))[0]
    return FoundEtcd(members, port, _etcd_tls(values, source) if url.startswith("https:") else None)


def _members(value: str) -> dict[str, str]:
    """Each member's first host. Raises DiscoveryError."""
    found: dict[str, str] = {}
    for entry in _listed(value):
        name, equals, url = entry.partition("=")
        if not equals:
            raise DiscoveryError(f"ETCD_INITIAL_CLUSTER: {shown(entry)} is not NAME=URL")
        found.setdefault(name.strip(), host_and_port(url.strip())[0])
    if not found:
        raise DiscoveryError("no ETCD_INITIAL_CLUSTER in it; name the nodes with --node")
    return found


def _etcd_tls(values: Mapping[str, str], source: str) -> Tls:
    """It asks for a certificate as soon as ETCD_TRUSTED_CA_FILE is set, whatever ETCD_CLIENT_CERT_AUTH says
    (etcd 3.4, tried). Its own does: it allows clientAuth, or etcd's gateway would not work."""
    ca = values.get("ETCD_TRUSTED_CA_FILE") or None
    cert, key = values.get("ETCD_CERT_FILE") or None, values.get("ETCD_KEY_FILE") or None
    if cert and key:
        return Tls(ca, cert, key)
    raise ConfigError(
        f"{source}: clients speak TLS to it, but it names no files to check it with; "
        "add ETCD_TRUSTED_CA_FILE, ETCD_CERT_FILE and ETCD_KEY_FILE"
    )


def kubeconfig(text: str, source: str, directory: PurePath) -> FoundApiserver:
    """Of the current context; paths in it count from `directory`. Raises ConfigError that names `source`."""
    import yaml

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    cluster, user = _current(document, source)
    server = cluster.get("server")
    try:
        parts = urlsplit(server if isinstance(server, str) else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise ConfigError(f"{source}: server {shown(server)} is not a URL such as https://10.0.0.100:6443")

    def path(entry: Mapping[str, Any], key: str) -> str | None:
        value = entry.get(key)
        return str(directory / value) if isinstance(value, str) and value else None

    ca = path(cluster, "certificate-authority")
    cert, key = path(user, "client-certificate"), path(user, "client-key")
    pair = (cert, key) if cert and key else (None, None)
    return FoundApiserver(host, port or 443, Tls(ca, *pair) if ca or pair[0] else None)


def _current(document: object, source: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The cluster and the user of the current context."""
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: not a kubeconfig; name one such as /etc/kubernetes/admin.conf")
    context = _named(document, "contexts", document.get("current-context"), "context")
    cluster = _named(document, "clusters", context.get("cluster"), "cluster")
    if not cluster:
        raise ConfigError(
            f"{source}: its current context names no cluster that it has; see: kubectl config view"
        )
    return cluster, _named(document, "users", context.get("user"), "user")


def _named(document: Mapping[str, Any], section: str, name: object, inner: str) -> Mapping[str, Any]:
    entries = document.get(section)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(inner), dict):
            return dict(entry[inner])
    return {}


def _listed(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether it is an IP literal, not a host name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
