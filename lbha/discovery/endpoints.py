"""What a discovered address must be, and the name and place of a server in its pool. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from lbha.errors import DiscoveryError
from lbha.model import Backend, Cluster, Endpoint, Node, Service

MAX_ENDPOINTS = 10_000
"""No control plane has more servers; an answer with more is a mistake or an attack."""


def one_line(text: str) -> str:
    """Words from outside for one line of a terminal: nothing that could move its cursor, 240 characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= 240 else f"{line[:239]}…"


def endpoint(cluster: Cluster, address: str, port: int) -> Endpoint:
    """The endpoint of an address from outside, in canonical form.

    Raises DiscoveryError for what no pool may hold: no IP literal, a port out of 1..65535, an address that
    is not unicast, link-local IPv6 (it needs an interface), the VIP (haproxy would connect to itself), and
    loopback, which is another host on each node, unless lbha.toml gives it to a node.
    """
    shown = one_line(address)
    try:
        ip = ip_address(address)
    except ValueError:
        raise DiscoveryError(f"{shown} is not an IP address") from None
    if not 1 <= port <= 65535:
        raise DiscoveryError(f"{shown} has the port {port}, which is not 1 to 65535")
    canonical = str(ip)
    if canonical in cluster.vips:
        raise DiscoveryError(f"{canonical} is the VIP: haproxy would connect to itself")
    if any(canonical in node.addresses for node in cluster.nodes):
        return Endpoint(canonical, port)
    problem = None
    if isinstance(ip, IPv6Address) and (ip.scope_id or ip.is_link_local):
        problem = "a link-local address"
    elif isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        problem = "an IPv4 address in IPv6 form"
    elif ip.is_loopback:
        problem = "a loopback address"
    elif ip.is_unspecified:
        problem = "the unspecified address"
    elif ip.is_multicast or canonical == "255.255.255.255":
        problem = "not a unicast address"
    if problem:
        raise DiscoveryError(f"{shown} is {problem}")
    return Endpoint(canonical, port)


def checked(cluster: Cluster, found: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """A whole answer: every endpoint usable, at least one of them. Raises DiscoveryError."""
    endpoints = tuple(endpoint(cluster, each.address, each.port) for each in found)
    if not endpoints:
        raise DiscoveryError("the answer is empty")
    if len(endpoints) > MAX_ENDPOINTS:
        raise DiscoveryError(f"the answer has {len(endpoints)} servers; at most {MAX_ENDPOINTS} make sense")
    return endpoints


def families(cluster: Cluster) -> tuple[int, ...]:
    """The IP versions of the VIPs, the first VIP's first."""
    return tuple(dict.fromkeys(ip_address(vip).version for vip in cluster.vips))


def preference(cluster: Cluster, address: str) -> tuple[bool, int]:
    """Sorts the addresses of one host: a cluster node's first, then the families in the VIPs' order."""
    versions = families(cluster)
    version = ip_address(address).version
    rank = versions.index(version) if version in versions else len(versions)
    return not any(address in node.addresses for node in cluster.nodes), rank


def node_endpoints(cluster: Cluster, service: Service) -> tuple[Endpoint, ...]:
    """Every node once, by its first address (a server on two families is still one server)."""
    return tuple(Endpoint(node.address, service.target_port) for node in cluster.nodes)


def backends(cluster: Cluster, service: Service, endpoints: Iterable[Endpoint]) -> tuple[Backend, ...]:
    """Servers in a pool's order, without duplicates, each under a name of its own.

    The servers of nodes come first, in the file's order, then the others by Endpoint.sort_key. A node's
    server has the node's name; its further ones and all others are `ADDRESS:PORT`, for IPv6 without
    brackets, which haproxy refuses in a server's name. No node's name holds a colon, so names are unique.
    """
    rest = set(endpoints)
    pool: list[Backend] = []
    for node in cluster.nodes:
        own = sorted(
            (each for each in rest if each.address in node.addresses),
            key=lambda each: _first_on(node, service, each),
        )
        rest.difference_update(own)
        for index, each in enumerate(own):
            pool.append(Backend(_plain(each) if index else node.name, each))
    others = sorted(rest, key=lambda each: each.sort_key)
    return (*pool, *(Backend(_plain(each), each) for each in others))


def _first_on(node: Node, service: Service, each: Endpoint) -> tuple[bool, int, int]:
    return each.port != service.target_port, node.addresses.index(each.address), each.port


def _plain(each: Endpoint) -> str:
    return f"{each.address}:{each.port}"
