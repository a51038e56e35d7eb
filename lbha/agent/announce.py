"""Says on the wire where the VIP is: a gratuitous ARP (RFC 5227, 3) or an unsolicited neighbour advertisement
(RFC 4861, 7.2.6).

keepalived does so itself when it takes the VIP. But after a time with two holders, the neighbours may have
heard the loser last, and the winner's keepalived does not know that there was one: each advert that the loser
hears from a lower priority makes its keepalived announce the VIP once more. Nor may the winner's agent, where
nothing comes from the loser at all; so it insists.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

INSIST = (0.4, 1.0, 2.4, 3.5, 5.5)
"""Seconds after a takeover. By 0.4 a loser that obeys VRRP has heard the winner's new priority, by 2.4 one that
is not heard has given the VIP up (2.05 measured). Neighbours that believe the loser ask again after 30 s."""

_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ALL_NODES = "ff02::1"
_OVERRIDE = 0x20000000


class Insistence:
    """When a node that has taken the VIP announces it again, as long as somebody else may have it too."""

    def __init__(self) -> None:
        self._gained: float | None = None
        self._left: tuple[float, ...] = ()

    def due(self, *, holds: bool, settled: bool, now: float) -> bool:
        """Whether to do so `now` (monotonic s). `settled`: all others say that they do not have it. An agent
        that finds the VIP here when it starts has taken nothing."""
        if not holds:
            self._gained, self._left = None, INSIST
        elif self._gained is None:
            self._gained = now
        elif self._left and now - self._gained >= self._left[0]:
            self._left = self._left[1:]
            return not settled
        return False


def announce(vips: Sequence[str], interface: str) -> None:
    """Once for each. Raises OSError."""
    mac = bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text().strip().replace(":", ""))
    for vip in vips:
        address = ip_address(vip).packed
        if len(address) == 4:
            _arp(interface, mac, address)
        else:
            _neighbour(interface, mac, address)


def _arp(interface: str, mac: bytes, address: bytes) -> None:
    """A request for one's own address: some hosts learn only from those."""
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, address, b"\0" * 6, address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface, _ARP))
        wire.send(_BROADCAST + mac + struct.pack("!H", _ARP) + body)


def _neighbour(interface: str, mac: bytes, address: bytes) -> None:
    """With the VIP as source and hop limit 255, or nobody would believe it; the kernel does the checksum."""
    body = struct.pack("!BBHI16sBB6s", 136, 0, 0, _OVERRIDE, address, 2, 1, mac)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as wire:
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex(interface)
        wire.bind((socket.inet_ntop(socket.AF_INET6, address), 0, 0, index))
        wire.sendto(body, (_ALL_NODES, 0, 0, index))
