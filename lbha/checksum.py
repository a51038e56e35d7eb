"""The Internet checksum of packets that lbha builds itself. Pure."""

from __future__ import annotations

import struct


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    # 65536 leaves 1 when divided by 65535: the remainder is the sum with its carries folded in.
    total = int.from_bytes(data, "big") % 0xFFFF
    return 0xFFFF - (total or (0xFFFF if any(data) else 0))


def pseudo_header(addresses: bytes, length: int, protocol: int) -> bytes:
    """What is counted before a payload of that `length`; `addresses` are the packed source and destination."""
    if len(addresses) == 8:  # RFC 9293, 3.1
        return addresses + struct.pack("!BBH", 0, protocol, length)
    return addresses + struct.pack("!II", length, protocol)  # RFC 8200, 8.1
