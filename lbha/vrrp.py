"""VRRP adverts as they are on the wire: RFC 9568 (version 3) and RFC 3768 (version 2). Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from lbha.checksum import checksum, pseudo_header

PROTOCOL = 112
VERSION = 3
"""Of lbha's own (`templates/keepalived`); keepalived drops the other."""

GROUP = "224.0.0.18"
GROUP6 = "ff02::12"
"""Where adverts go that have no list of peers (RFC 9568, 5.1.1.2 and 5.1.2.2)."""

_ADVERTISEMENT = 1
_HEADER = struct.Struct("!BBBBHH")


class BadAdvert(ValueError):
    """Not an advert."""


@dataclass(frozen=True, slots=True)
class Advert:
    """Who sends it says that it holds `addresses`. Priority 0: it gives them up now (RFC 9568, 5.2.4)."""

    version: int
    virtual_router_id: int
    priority: int
    addresses: tuple[str, ...]


def parse(data: bytes, *, six: bool) -> Advert:
    """The payload of an IP packet of protocol 112; `six` for IPv6. Raises BadAdvert.

    The checksum is not looked at: the kernel does not count it over the pseudo-header either, and nothing is
    done here on the word of one packet.
    """
    if len(data) < _HEADER.size:
        raise BadAdvert("too short")
    kind, router, priority, count, _, _ = _HEADER.unpack_from(data)
    version = kind >> 4
    if kind & 15 != _ADVERTISEMENT or version not in (2, 3) or (six and version == 2):
        raise BadAdvert(f"neither VRRP 2 nor 3: type byte {kind}")
    size = 16 if six else 4
    body = data[_HEADER.size :]
    if not router or not count or len(body) < count * size:
        raise BadAdvert("too short for its addresses")
    pieces = (body[at : at + size] for at in range(0, count * size, size))
    return Advert(version, router, priority, tuple(str(ipaddress.ip_address(piece)) for piece in pieces))


def build(advert: Advert, interval: float, source: str, destination: str) -> bytes:
    """That advert as version 3, from one address to the other; `interval` (s) is what backups are to expect
    (RFC 9568, 5.2.7: centiseconds)."""
    addresses = [ipaddress.ip_address(address).packed for address in advert.addresses]
    first, centiseconds = VERSION << 4 | _ADVERTISEMENT, round(interval * 100)
    fields = (first, advert.virtual_router_id, advert.priority, len(addresses), centiseconds)
    bare = _HEADER.pack(*fields, 0) + b"".join(addresses)
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    total = checksum(pseudo_header(ends, len(bare), PROTOCOL) + bare)
    return _HEADER.pack(*fields, total) + bare[_HEADER.size :]


def payload(packet: bytes) -> bytes:
    """What an IPv4 packet carries, as a raw socket delivers it, header and all. Raises BadAdvert."""
    length = (packet[0] & 15) * 4 if packet else 0
    if length < 20 or len(packet) < length:
        raise BadAdvert("no IPv4 packet")
    if packet[8] != 255:
        raise BadAdvert(f"time to live {packet[8]}: from another link (RFC 9568, 5.1.1.3)")
    return packet[length:]


def rank(priority: int, address: str) -> tuple[int, int]:
    """Whom an election prefers: the higher priority, then the higher address (RFC 9568, 6.4.3)."""
    return priority, int(ipaddress.ip_address(address))
