"""Who answers for an address on the link: ARP (RFC 826; as RFC 5227 probes, without claiming anything) and
neighbour discovery (RFC 4861). Needs CAP_NET_RAW."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Collection
from contextlib import closing
from ipaddress import IPv6Address

from lbha.doctor.links import Interface

TRIES = 2
SECONDS = 1.0
"""Probes of each address, and how long answers are waited for."""

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERTYPE = 0x0806
_BROADCAST = b"\xff" * 6
_SOLICIT, _ADVERTISE = 135, 136
_TARGET_LINK_ADDRESS = 2


def probe(interface: Interface, addresses: Collection[str], own6: str | None) -> dict[str, frozenset[str]]:
    """By address the MAC addresses that answered for it. `own6`: this host's own IPv6 address, to ask from.

    Raises OSError, PermissionError without CAP_NET_RAW.
    """
    four = [address for address in addresses if ":" not in address]
    six = [address for address in addresses if ":" in address]
    found: dict[str, set[str]] = {address: set() for address in addresses}
    mac = bytes.fromhex(interface.mac.replace(":", ""))
    wires: list[socket.socket] = []
    try:
        if four:
            wires.append(_packet_socket(interface.name))
        if six and own6:
            wires.append(_neighbour_socket(interface, own6))
        end = time.monotonic() + SECONDS
        for attempt in range(TRIES):
            for wire in wires:
                if wire.family == socket.AF_PACKET:
                    for address in four:
                        wire.send(arp_probe(mac, address))
                else:
                    for address in six:
                        wire.sendto(
                            solicitation(mac, address), (solicited_node(address), 0, 0, interface.index)
                        )
            until = end - SECONDS * (TRIES - 1 - attempt) / TRIES
            while (left := until - time.monotonic()) > 0:
                for wire in select.select(wires, [], [], left)[0]:
                    data = wire.recv(2048)
                    answer = arp_answer(data) if wire.family == socket.AF_PACKET else advertised(data)
                    if answer and answer[0] in found:
                        found[answer[0]].add(answer[1])
    finally:
        for wire in wires:
            with closing(wire):
                pass
    return {address: frozenset(macs) for address, macs in found.items()}


def arp_probe(mac: bytes, address: str) -> bytes:
    """An Ethernet frame that asks who has `address`, from nobody (RFC 5227, 2.1.1): no cache learns from it."""
    request = _ARP.pack(1, 0x0800, 6, 4, 1, mac, bytes(4), bytes(6), socket.inet_aton(address))
    return _BROADCAST + mac + struct.pack("!H", _ETHERTYPE) + request


def arp_answer(frame: bytes) -> tuple[str, str] | None:
    """The address and the MAC of whoever says in this frame that it has it; None for anything else."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", _ETHERTYPE):
        return None
    hardware, protocol, _, _, _, mac, sender, _, _ = _ARP.unpack_from(frame, 14)
    if (hardware, protocol) != (1, 0x0800) or sender == bytes(4):
        return None
    return socket.inet_ntoa(sender), mac.hex(":")


def solicited_node(address: str) -> str:
    """The multicast group of an IPv6 address (RFC 4291, 2.7.1)."""
    return str(IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + IPv6Address(address).packed[-3:]))


def solicitation(mac: bytes, address: str) -> bytes:
    """ICMPv6 that asks who has `address`; the kernel fills in the checksum."""
    return struct.pack("!BBHI", _SOLICIT, 0, 0, 0) + IPv6Address(address).packed + b"\x01\x01" + mac


def advertised(packet: bytes) -> tuple[str, str] | None:
    """The address and the MAC in a neighbour advertisement; None for anything else."""
    if len(packet) < 24 or packet[0] != _ADVERTISE:
        return None
    options = packet[24:]
    while len(options) >= 8 and options[1]:
        if options[0] == _TARGET_LINK_ADDRESS:
            return str(IPv6Address(packet[8:24])), options[2:8].hex(":")
        options = options[options[1] * 8 :]
    return None


def _packet_socket(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
    wire.bind((interface, _ETHERTYPE))
    return wire


def _neighbour_socket(interface: Interface, own: str) -> socket.socket:
    wire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)  # RFC 4861, 7.1: others are ignored
    wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
    wire.bind((own, 0, 0, interface.index))
    return wire
