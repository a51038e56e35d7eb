"""The VRRP adverts that reach this node: who says that it holds the VIP, and who has no business to.

keepalived hears the same packets and obeys those of its peers; it tells nobody of the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import struct
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field

from lbha.facts import Stranger
from lbha.model import Cluster, Node
from lbha.timing import ADVERT_LOOK
from lbha.vrrp import GROUP, GROUP6, PROTOCOL, VERSION, Advert, BadAdvert, parse, payload

FORGET = 60.0
"""Seconds that a stranger is remembered for."""

_MANY = 16
"""Strangers that are remembered at once."""

_THIS_LINK = struct.pack("@i", 255)
"""The hop limit of an advert that no router passed on (RFC 9568, 5.1.2.3); for IPv4, `payload` looks."""

_LOG = logging.getLogger("lbha")


@dataclass(frozen=True, slots=True)
class Heard:
    """The last advert of a node, and when it came (monotonic s)."""

    at: float
    advert: Advert


@dataclass(slots=True)
class Adverts:
    """Until cancelled. `heard` is by node; `strangers` are all others on this cluster's virtual router id."""

    cluster: Cluster
    node: Node
    heard: dict[str, Heard] = field(default_factory=dict)
    _strangers: dict[str, Stranger] = field(default_factory=dict)

    @property
    def strangers(self) -> tuple[Stranger, ...]:
        """Those of the last minute."""
        now = time.time()
        return tuple(each for each in self._strangers.values() if now - each.at < FORGET)

    async def run(self, interface: str | None) -> None:
        """Listen, to multicast on `interface`. Where that is refused it is told, and nobody is heard."""
        six = ":" in self.node.address
        try:
            wire = listen(six, interface)
        except OSError as error:
            _LOG.warning("VRRP adverts are not heard: %s", error.strerror)
            return
        with closing(wire):
            while True:
                await asyncio.sleep(ADVERT_LOOK)  # A backup hears ten a second, and need not wake for each.
                for source, advert in arrived(wire, six=six):
                    self.take(source, advert, time.monotonic())

    def take(self, source: str, advert: Advert, now: float) -> None:
        """One advert that came at `now` (monotonic s)."""
        if advert.virtual_router_id != self.cluster.virtual_router_id:
            return  # Another cluster's business.
        sender = next((each for each in self.cluster.nodes if source in each.addresses), None)
        if sender is not None and advert.version == VERSION and set(advert.addresses) & set(self.cluster.vips):
            if sender != self.node:
                self.heard[sender.name] = Heard(now, advert)
            return
        if source in self._strangers or len(self._strangers) < _MANY:
            self._strangers[source] = Stranger(source, advert.priority, advert.addresses, time.time())
        else:
            self._strangers = {each.source: each for each in self.strangers}


def listen(six: bool, interface: str | None) -> socket.socket:
    """A raw socket for VRRP, unicast and, on `interface`, multicast. OSError without CAP_NET_RAW."""
    family = socket.AF_INET6 if six else socket.AF_INET
    wire = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, PROTOCOL)
    try:
        index = socket.if_nametoindex(interface) if interface else 0
        with suppress(OSError):  # Unicast adverts, those of our own peers, come without it.
            if six:
                wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
                group = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("@I", index)
                wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            else:
                group = socket.inet_aton(GROUP) + struct.pack("@4si", b"\0" * 4, index)
                wire.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    except OSError:
        wire.close()
        raise
    return wire


def arrived(wire: socket.socket, *, six: bool) -> list[tuple[str, Advert]]:
    """What has come since the last look; of a flood, a part."""
    found = []
    for _ in range(200):
        try:
            packet, beside, _, sender = wire.recvmsg(2048, socket.CMSG_SPACE(4))
        except OSError:
            break
        if any(kind == socket.IPV6_HOPLIMIT and value != _THIS_LINK for _, kind, value in beside):
            continue
        with suppress(BadAdvert):
            advert = parse(packet if six else payload(packet), six=six)
            found.append((str(ipaddress.ip_address(str(sender[0]).partition("%")[0])), advert))
    return found
