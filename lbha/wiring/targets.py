"""What lbha.toml says of the addresses that other programs must know. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lbha.discovery.endpoints import backends, node_endpoints
from lbha.errors import LbhaError
from lbha.model import Cluster, Endpoint, Kind, Service


class Absent(LbhaError):
    """lbha.toml does not say enough for a piece."""


@dataclass(frozen=True, slots=True)
class Member:
    """An etcd member of a static cluster: its name, and where clients and the other members reach it."""

    name: str
    client: Endpoint
    peer: Endpoint


def service(cluster: Cluster, kind: Kind) -> Service:
    """The first service of that kind. Raises Absent."""
    for each in cluster.services:
        if each.kind is kind:
            return each
    raise Absent(f'lbha.toml has no service of kind "{kind}"; add [services.NAME] with kind = "{kind}"')


def etcd_or_none(cluster: Cluster) -> Service | None:
    """The etcd service, where there is one."""
    return next((each for each in cluster.services if each.kind is Kind.ETCD), None)


def scheme(wanted: Service) -> str:
    """`https`, but for an etcd that lbha.toml checks without TLS."""
    return "https" if wanted.kind is Kind.KUBE_APISERVER or wanted.tls else "http"


def at_vip(cluster: Cluster, wanted: Service) -> Endpoint:
    """Where clients reach the service. The first VIP: a client that knows one address needs no other."""
    return Endpoint(cluster.vips[0], wanted.port)


def vip_url(cluster: Cluster, wanted: Service) -> str:
    """`https://10.0.0.100:6443`, with brackets around an IPv6 address."""
    return f"{scheme(wanted)}://{at_vip(cluster, wanted)}"


def members(cluster: Cluster, etcd: Service) -> tuple[Member, ...]:
    """The members as lbha.toml itself tells them. Raises Absent where another source does.

    The peer port is the one above the client port, as 2380 is above 2379.
    """
    listed = etcd.backends
    if isinstance(listed, str) and listed not in ("nodes", "etcd-members"):
        raise Absent(
            f'services.{etcd.name}.backends = "{listed}" names the members elsewhere; write "nodes" or a list '
            "of addresses (in a copy of lbha.toml, with -c)"
        )
    endpoints = node_endpoints(cluster, etcd) if isinstance(listed, str) else listed
    return tuple(
        Member(_name(each.name), each.endpoint, Endpoint(each.endpoint.address, _peer_port(each.endpoint.port)))
        for each in backends(cluster, etcd, endpoints)
    )


def names_of(cluster: Cluster) -> tuple[str, ...]:
    """What a server's certificate must name, whichever node it is on: VIPs, nodes' addresses and names."""
    addresses = [address for node in cluster.nodes for address in node.addresses]
    return (*cluster.vips, *addresses, *(node.name for node in cluster.nodes))


def _name(backend: str) -> str:
    """A node's name; for a server elsewhere (`10.0.0.21:2379`) one that may name a file too."""
    return f"etcd-{re.sub('[.:]', '-', backend)}" if ":" in backend else backend


def _peer_port(client: int) -> int:
    return client + 1 if client < 65535 else client - 1
