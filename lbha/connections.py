"""TCP connections through the VIP as small keys, and how a set of them travels from agent to agent. Pure.

A key is what the kernel calls a socket's identity, in network order: the VIP's port, the client's port, the
VIP, the client's address: 12 bytes for IPv4, 36 for IPv6. Bytes rather than objects: twenty thousand of them
are read and compared each second.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from lbha.model import Cluster, Endpoint

Connection: TypeAlias = bytes

MAX_CONNECTIONS = 65_536
"""Connections of one VIP that are told to a peer; what is over is left out, and counted."""

MAX_PACKED = 4 << 20
"""Bytes of a delta as it travels. All connections anew, IPv6 and incompressible, are less."""

_IPV4, _IPV6 = 12, 36
_HEAD = struct.Struct("!4sIIIIII")
_MAGIC = b"lbc1"
_MAX_RAW = _HEAD.size + 2 * MAX_CONNECTIONS * _IPV6


class BadDelta(ValueError):
    """What came is no delta, or not one of the set that it was applied to."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What makes the next set out of the one before it. `total` is the size of the next one, `dropped` counts
    the connections that it leaves out."""

    gone: frozenset[Connection]
    new: frozenset[Connection]
    total: int
    dropped: int = 0


def connection(at: Endpoint, client: Endpoint) -> Connection:
    """The key of the connection from `client` to `at`; both of one family."""
    packed = ip_address(at.address).packed, ip_address(client.address).packed
    return struct.pack("!HH", at.port, client.port) + packed[0] + packed[1]


def ends(key: Connection) -> tuple[Endpoint, Endpoint]:
    """The VIP's end and the client's."""
    here, there = struct.unpack_from("!HH", key)
    half = (len(key) - 4) // 2
    return (
        Endpoint(str(ip_address(key[4 : 4 + half])), here),
        Endpoint(str(ip_address(key[4 + half :])), there),
    )


def client(key: Connection) -> bytes:
    """The client's address in network order."""
    return key[4 + (len(key) - 4) // 2 :]


def rank(key: Connection) -> int:
    """Where a connection stands when all clients are to be told, one after the other.

    The same on every node, and mixed: the old holder and the new one work in step, so together they make no
    more clients come back in a second than each alone.
    """
    return zlib.crc32(key)


def vip_ends(cluster: Cluster) -> dict[Endpoint, Endpoint]:
    """Where haproxy may listen on the VIPs, redirected or not, and where clients meet it."""
    return {
        Endpoint(vip, port): Endpoint(vip, service.port)
        for vip in cluster.vips
        for service in cluster.services
        for port in service.bind_ports
    }


def as_clients_see(found: Set[Connection], ends: Mapping[Endpoint, Endpoint]) -> Set[Connection]:
    """Keys with haproxy's own port on the VIP turned into those with the port that clients use (`vip_ends`)."""
    ports = {one.port.to_bytes(2, "big"): other.port.to_bytes(2, "big") for one, other in ends.items()}
    if all(one == other for one, other in ports.items()):
        return found
    return {ports.get(key[:2], key[:2]) + key[2:] for key in found}


def delta(before: Set[Connection], now: Set[Connection], dropped: int = 0) -> Delta:
    """What makes `now` out of `before`."""
    return Delta(frozenset(before - now), frozenset(now - before), len(now), dropped)


def applied(before: Set[Connection], change: Delta) -> frozenset[Connection]:
    """The next set. Raises BadDelta when the delta belongs to another one."""
    now = frozenset((before - change.gone) | change.new)
    if len(now) != change.total:
        raise BadDelta(f"{len(now)} connections, not {change.total}: a delta of another set")
    return now


def encode(change: Delta) -> bytes:
    """A delta as it travels: counts and sorted keys, compressed."""
    groups = [
        sorted(key for key in keys if len(key) == size)
        for keys in (change.gone, change.new)
        for size in (_IPV4, _IPV6)
    ]
    head = _HEAD.pack(_MAGIC, change.total, change.dropped, *map(len, groups))
    return zlib.compress(head + b"".join(b"".join(group) for group in groups), 1)


def decode(data: bytes) -> Delta:
    """A delta from outside. Raises BadDelta for anything but what `encode` makes within the bounds."""
    if len(data) > MAX_PACKED:
        raise BadDelta(f"more than {MAX_PACKED} bytes")
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(data, _MAX_RAW + 1)
    except zlib.error:
        raise BadDelta("not compressed as agents do") from None
    if len(raw) > _MAX_RAW or not unpacker.eof or unpacker.unused_data:
        raise BadDelta("longer than it may be, or cut short")
    if len(raw) < _HEAD.size:
        raise BadDelta("no head")
    magic, total, dropped, *counts = _HEAD.unpack_from(raw)
    if magic != _MAGIC:
        raise BadDelta("of another kind")
    sizes = (_IPV4, _IPV6, _IPV4, _IPV6)
    if _HEAD.size + sum(n * size for n, size in zip(counts, sizes, strict=True)) != len(raw):
        raise BadDelta("its counts do not fit its length")
    if max(total, counts[0] + counts[1], counts[2] + counts[3]) > MAX_CONNECTIONS:
        raise BadDelta(f"more than {MAX_CONNECTIONS} connections")
    at, groups = _HEAD.size, []
    for count, size in zip(counts, sizes, strict=True):
        end = at + count * size
        groups.append([raw[n : n + size] for n in range(at, end, size)])
        at = end
    return Delta(frozenset(groups[0] + groups[1]), frozenset(groups[2] + groups[3]), total, dropped)


def bounded(found: Collection[Connection]) -> tuple[frozenset[Connection], int]:
    """As many as may be told, and how many are over. The same ones each time, so that deltas stay small."""
    over = len(found) - MAX_CONNECTIONS
    if over <= 0:
        return frozenset(found), 0
    return frozenset(sorted(found, key=rank)[:MAX_CONNECTIONS]), over


def to_tell(
    heard: Iterable[Connection], carried: Set[Connection], own: Collection[Endpoint]
) -> list[Connection]:
    """The connections whose clients this node may tell that they are dead, in the order of `rank`.

    Only those of the VIP's own ends (`own`), only towards a unicast client with a port, and none that this
    node carries itself.
    """
    heads = {(end.port.to_bytes(2, "big"), ip_address(end.address).packed) for end in own}
    vips = {address for _, address in heads}
    fit: dict[bytes, bool] = {}

    def good(address: bytes) -> bool:
        if address not in fit:
            fit[address] = address not in vips and _is_unicast(address)
        return fit[address]

    return sorted(
        (
            key
            for key in heard
            if key not in carried
            and (key[:2], key[4 : 4 + (len(key) - 4) // 2]) in heads
            and key[2:4] != b"\0\0"
            and good(client(key))
        ),
        key=rank,
    )


def _is_unicast(address: bytes) -> bool:
    ip = ip_address(address)
    return not (ip.is_multicast or ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_reserved)
