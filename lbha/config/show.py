"""Cluster -> document: what every key is, also those that the file did not name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lbha.model import Cluster, Node, Paths, Peers, Service


def effective(cluster: Cluster) -> dict[str, Any]:
    """The whole configuration, defaults included, as the document of a lbha.toml."""
    document: dict[str, Any] = {
        "cluster": {
            "name": cluster.name,
            "vips": list(cluster.vips),
            "interface": cluster.interface,
            "virtual_router_id": cluster.virtual_router_id,
        },
        "nodes": {node.name: _addresses(node) for node in cluster.nodes},
        "services": {service.name: _service(service) for service in cluster.services},
        "failover": _fields(cluster.failover),
        "health": _fields(cluster.health),
        "metrics": {"address": str(cluster.metrics)},
        "peers": _fields(cluster.peers),
        "paths": _fields(cluster.paths),
        "templates": {"directory": cluster.templates},
    }
    return _without_none(document)


def fingerprint(cluster: Cluster) -> str:
    """The sha256 of what must be the same on every node: all but where a node keeps its own files."""
    import hashlib

    import msgspec

    shared = replace(cluster, paths=Paths(), peers=Peers(cluster.peers.port, "", "", ""))
    return hashlib.sha256(msgspec.json.encode(shared)).hexdigest()


def _service(service: Service) -> dict[str, Any]:
    listed = service.backends
    return {
        "kind": service.kind.value,
        "port": service.port,
        "target_port": service.target_port,
        "listen": service.listen.value,
        "redirect_port": service.redirect_port,
        "backends": listed if isinstance(listed, str) else [str(each) for each in listed],
        "balance": service.balance,
        "token_file": service.token_file,
        "check": _fields(service.check),
        "tls": _fields(service.tls) if service.tls else None,
    }


def _addresses(node: Node) -> str | list[str]:
    return node.address if len(node.addresses) == 1 else list(node.addresses)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null; and a table of which nothing is left says nothing."""
    kept = {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }
    return {key: value for key, value in kept.items() if value != {}}
