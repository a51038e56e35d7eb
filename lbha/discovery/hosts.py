"""From URLs, as etcd writes them, to one endpoint a member. Host names are resolved as the system does."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Iterable, Sequence
from ipaddress import ip_address

from lbha.discovery.endpoints import endpoint, one_line, preference
from lbha.discovery.source import off_loop
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint

_URL = re.compile(r"https?://(?:([A-Za-z0-9_][A-Za-z0-9._-]*)|\[([0-9A-Fa-f:.]+)\]):([0-9]{1,5})/?")
"""As strict as etcd itself: with a port, and nothing behind it, so that a lost comma hides no member."""


def host_and_port(url: str) -> tuple[str, int]:
    """Host and port of `http[s]://HOST:PORT`. Raises DiscoveryError."""
    parts = _URL.fullmatch(url)
    if not parts or not 1 <= int(parts[3]) <= 65535:
        raise DiscoveryError(f'"{one_line(url)}" is not a URL such as https://10.0.0.11:2379')
    return parts[1] or parts[2], int(parts[3])


async def member_endpoint(cluster: Cluster, candidates: Sequence[tuple[str, int]]) -> Endpoint:
    """The one endpoint under which a member joins the pool, of the (host, port) pairs it may be reached at.

    Literals are tried before names, and among several a node's own address wins, then the VIPs' families,
    then the order given. Raises DiscoveryError when none is usable.
    """
    problems: list[str] = []
    usable: list[Endpoint] = []
    names: list[tuple[str, int]] = []
    for host, port in candidates:
        address = _known_address(cluster, host)
        if address is None:
            names.append((host, port))
            continue
        try:
            usable.append(endpoint(cluster, address, port))
        except DiscoveryError as error:
            problems.append(str(error))
    for host, port in names if not usable else ():
        try:
            usable += await _resolve(cluster, host, port)
        except DiscoveryError as error:
            problems.append(str(error))
    if not usable:
        raise DiscoveryError("; ".join(dict.fromkeys(problems)) or "no address")
    return min(usable, key=lambda each: preference(cluster, each.address))


async def member_endpoints(members: Iterable[tuple[str, Awaitable[Endpoint]]]) -> tuple[Endpoint, ...]:
    """Each (name, endpoint) of a whole list of members, awaited at once.

    Raises DiscoveryError, naming the member, for one that is unusable, and for two at one endpoint (a copied
    line, or a load balancer that both advertise): the pool would silently shrink by a member.
    """
    names, found = zip(*members, strict=True)
    owners: dict[Endpoint, str] = {}
    for name, each in zip(names, await asyncio.gather(*found, return_exceptions=True), strict=True):
        if isinstance(each, DiscoveryError):
            raise DiscoveryError(f"member {one_line(name)}: {each}") from None
        if isinstance(each, BaseException):
            raise each
        if each in owners:
            both = f"{one_line(owners[each])} and {one_line(name)}"
            raise DiscoveryError(f"members {both} are both at {each}; give each URLs of its own")
        owners[each] = name
    return tuple(owners)


def _known_address(cluster: Cluster, host: str) -> str | None:
    """An address that needs no resolver: a literal, or a node's name.

    Debian's /etc/hosts gives a host's own name 127.0.1.1, so the file's word for a node comes first.
    """
    for node in cluster.nodes:
        if node.name.lower() == host.lower():
            return node.address
    try:
        return str(ip_address(host))
    except ValueError:
        return None


async def _resolve(cluster: Cluster, host: str, port: int) -> list[Endpoint]:
    """The usable addresses of a host name, in numeric order, so that a rotating answer stays one answer."""
    try:
        found = await off_loop(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except socket.gaierror as error:
        raise DiscoveryError(f"{one_line(host)} does not resolve ({error.strerror})") from None
    except (OSError, ValueError):  # ValueError: a name that IDNA refuses
        raise DiscoveryError(f"{one_line(host)} does not resolve") from None
    usable, problems = set(), []
    for *_, address in found:
        try:
            usable.add(endpoint(cluster, str(address[0]), port))
        except DiscoveryError as error:
            problems.append(str(error))
    if not usable:
        raise DiscoveryError(f"{one_line(host)}: {problems[0] if problems else 'no address'}")
    return sorted(usable, key=lambda each: each.sort_key)
