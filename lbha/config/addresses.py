"""VIPs, nodes and endpoints: IP literals in canonical form, each with one owner, in the VIPs' families."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from lbha.config.document import ABSENT, Document, printable, under
from lbha.config.schema import RawCluster
from lbha.config.values import name, unique
from lbha.model import Endpoint, Node

_THIS_NETWORK = IPv4Network("0.0.0.0/8")

_UNICAST = "write a unicast address of your network"

MAX_NODES = 32
"""More nodes than this leave too few of VRRP's 254 priorities between two neighbours."""


def vips(document: Document, raw: RawCluster) -> tuple[str, ...]:
    """cluster.vip or cluster.vips."""
    if raw.vip is not None and raw.vips is not None:
        document.fail("cluster.vips", raw.vips, "stands beside cluster.vip", "keep one of the two")
    if raw.vip is not None:
        return (_vip(document, "cluster.vip", raw.vip),)
    cure = 'write vip = "10.0.0.100", or vips = [ … ] for several'
    if raw.vips is None:
        document.fail("cluster.vip", ABSENT, "missing", cure)
    if not raw.vips:
        document.fail("cluster.vips", raw.vips, "an empty list", cure)
    found = [_vip(document, "cluster.vips", value) for value in raw.vips]
    unique(document, "cluster.vips", found)
    return tuple(found)


def _vip(document: Document, key: str, value: str) -> str:
    found = address(document, key, value)
    if ip_address(found).is_loopback:
        document.fail(key, value, "a loopback address, which no client reaches", _UNICAST)
    return found


def nodes(document: Document, vips: tuple[str, ...]) -> tuple[Node, ...]:
    """[nodes], each with one address of every family that a VIP has, the first VIP's family first."""
    table = document.tables.get("nodes")
    cure = 'write [nodes] with a line for each node, such as cp1 = "10.0.0.11"'
    if table is None:
        document.fail("nodes", ABSENT, "missing", cure)
    if not isinstance(table, dict):
        document.fail("nodes", table, "not a table", cure)
    if not table:
        document.fail("nodes", ABSENT, "no nodes", cure)
    if len(table) > MAX_NODES:
        document.fail("nodes", ABSENT, f"{len(table)} nodes", f"list at most {MAX_NODES}")
    families: dict[int, str] = {}
    for vip in vips:
        families.setdefault(_family(vip), vip)
    found: list[Node] = []
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for node, value in table.items():
        key = under("nodes", node)
        name(document, key, node)
        if _is_address(node):
            # Discovery takes a node's name in a URL for the node: 10.0.0.12 must never mean 10.0.0.11.
            document.fail(key, value, "an address in the place of a name", 'write such as cp1 = "10.0.0.11"')
        other = names.setdefault(node.lower(), node)
        if other != node:
            document.fail(key, value, f"the same name as nodes.{other}", "give each node its own")
        addresses = _node_addresses(document, key, value, families)
        for each in addresses:
            if each in vips:
                document.fail(key, value, f"{each} is the VIP", "the VIP must belong to no node")
            owner = owners.setdefault(each, node)
            if owner != node:
                document.fail(
                    key, value, f"{each} is already the address of nodes.{owner}", "each node needs its own"
                )
        found.append(Node(node, addresses))
    return tuple(found)


def _node_addresses(document: Document, key: str, value: object, families: dict[int, str]) -> tuple[str, ...]:
    """One address for each of the VIPs' families, in their order."""
    values = value if isinstance(value, list) else [value]
    texts = [item for item in values if isinstance(item, str)]
    if not texts or len(texts) != len(values):
        cure = 'write "10.0.0.11", or a list with one address for each family'
        document.fail(key, value, "not an address", cure)
    by_family: dict[int, str] = {}
    for text in texts:
        found = address(document, key, text)
        if _family(found) in by_family:
            document.fail(key, value, "two addresses of one family", "write one for each family")
        by_family[_family(found)] = found
    for family, vip in families.items():
        if family not in by_family:
            document.fail(
                key,
                value,
                f"no IPv{family} address, but the VIP {vip} is IPv{family}",
                f"add the node's IPv{family} address, or choose a VIP of the node's family",
            )
    for family, found in by_family.items():
        if family not in families:
            document.fail(
                key,
                value,
                f"{found} is IPv{family}, but no VIP is",
                f"remove it, or add an IPv{family} VIP to cluster.vips",
            )
    return tuple(by_family[family] for family in families)


def address(document: Document, key: str, value: str) -> str:
    """A unicast IP literal, canonical. Host names are refused: haproxy would resolve them while it starts."""
    try:
        ip = ip_address(value)
    except ValueError:
        cure = 'write an IP literal such as "10.0.0.100" or "fd00::100"'
        if "/" in value:
            cure = "write it without a prefix length"
        document.fail(key, value, "not an IP address", cure)
    problem = _unusable(ip)
    if problem:
        document.fail(key, value, problem, _UNICAST)
    return str(ip)


def _unusable(ip: IPv4Address | IPv6Address) -> str | None:
    if isinstance(ip, IPv6Address) and (ip.scope_id or ip.is_link_local):
        return "an address that means nothing without an interface"
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return "an IPv4 address in IPv6 form"
    if ip.is_multicast or ip == IPv4Address("255.255.255.255"):
        return "not a unicast address"
    if ip.is_unspecified:
        return "the unspecified address"
    if isinstance(ip, IPv4Address) and (ip in _THIS_NETWORK or ip.is_reserved):
        return "an address that no host can have"
    return None


def endpoint(document: Document, key: str, value: str, default_port: int | None) -> Endpoint:
    """`address`, `address:port` or `[IPv6]:port`. Without `default_port` the port must be there."""
    host, port = value, None
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            document.fail(key, value, "not an address and a port", 'write it as "[fd00::11]:2379"')
        port = rest[1:] if rest else None
    elif value.count(":") == 1:
        host, _, port = value.partition(":")
    found = address(document, key, host)
    if port is None:
        if default_port is None:
            document.fail(key, value, "no port", f'write "{Endpoint(found, 8404)}"')
        return Endpoint(found, default_port)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        problem = f"{printable(port)} is no port" if port else "no port after the colon"
        document.fail(key, value, problem, "write a number from 1 to 65535")
    return Endpoint(found, int(port))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _family(text: str) -> int:
    return 6 if ":" in text else 4
