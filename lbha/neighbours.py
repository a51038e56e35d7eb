"""The kernel's neighbour tables (ARP, neighbour discovery), made ready for the day this node loses the VIP.

A node that passes on what still arrives for the VIP asks whose it is now, and keeps the packets until the next
holder answers: clients that connect in those 30 ms lose nothing; otherwise they would try again after 1 s.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from lbha.host import own_addresses

ROOM = 2 << 20
"""Bytes of packets that are kept for a neighbour that is still looked for: some 1700 SYNs. Linux keeps 212,992:
some 170, fewer than the kubelets, proxies and controllers that a large cluster connects at once (measured)."""

# linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=IHHIIi")
_REQUEST, _ACK, _NESTED = 0x1, 0x4, 0x8000
_RTM_SETNEIGHTBL = 67
_NDTA_NAME, _NDTA_PARMS = 1, 6
_NDTPA_IFINDEX, _NDTPA_QUEUE_LENBYTES = 1, 16
_TABLES = ((socket.AF_INET, b"arp_cache\0"), (socket.AF_INET6, b"ndisc_cache\0"))
_ANSWER_SECONDS = 3.0


def prepare(vips: Sequence[str]) -> None:
    """All of it, for VIPs that this node holds. Needs CAP_NET_ADMIN. Raises OSError."""
    forget(vips)
    addresses = own_addresses()
    for interface in {addresses[vip] for vip in vips if vip in addresses}:
        make_room(interface)


def forget(addresses: Sequence[str]) -> None:
    """Forget whose these addresses were, on every link. Needs CAP_NET_ADMIN.

    A node that holds a VIP has no use for that. Once it has given it up it would send what it passes on to
    whoever had the VIP before; with nothing known it asks.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as netlink:
        for message in netlink.get_neighbours():
            text = message.get_attr("NDA_DST")
            if text and str(ip_address(text)) in addresses:
                with suppress(NetlinkError):  # It has gone by itself.
                    netlink.neigh("del", dst=text, ifindex=message["ifindex"])


def make_room(interface: str) -> None:
    """Let `interface` keep `ROOM` bytes for a neighbour that is still looked for, until the host boots again.

    As `sysctl net.ipv4.neigh.INTERFACE.unres_qlen_bytes` and its sibling for IPv6 do; this works for a service
    that may not write to /proc/sys as well. Needs CAP_NET_ADMIN. Raises OSError.
    """
    index = socket.if_nametoindex(interface)
    number = struct.Struct("=I").pack
    room = _attribute(_NDTPA_IFINDEX, number(index)) + _attribute(_NDTPA_QUEUE_LENBYTES, number(ROOM))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(_ANSWER_SECONDS)
        for family, table in _TABLES:
            body = struct.pack("=B3x", family) + _attribute(_NDTA_NAME, table)
            body += _attribute(_NDTA_PARMS | _NESTED, room)
            netlink.send(_HEADER.pack(16 + len(body), _RTM_SETNEIGHTBL, _REQUEST | _ACK, 1, 0) + body)
            *_, refused = _ERROR.unpack_from(netlink.recv(65536))
            if refused and not (family == socket.AF_INET6 and -refused == errno.ENOENT):
                raise OSError(-refused, os.strerror(-refused), interface)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
