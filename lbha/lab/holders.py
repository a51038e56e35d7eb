"""Who holds the VIP, from the kernel of every node at once, told by netlink as it changes. Needs root.

A node holds the VIP when the address is on its interface and the cable is in: a node without power or cable
keeps the address in its namespace, and nobody can reach it.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from lbha.errors import LabError
from lbha.lab.measure import Holders
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.wire import NETNS_DIR

# Numbers of linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if.h and linux/if_arp.h.
_DONE, _NEWLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 3, 16, 18, 20, 21, 22
_GROUPS = 0x1 | 0x10 | 0x100  # links, IPv4 addresses, IPv6 addresses
_REQUEST_DUMP = 0x1 | 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_LOWER_UP = 0x10000
_LOOPBACK = 772
_CLONE_NEWNET = 0x40000000


@dataclass(slots=True)
class _Host:
    name: str
    has_vip: bool = False
    has_carrier: bool = False


class HolderWatch:
    """Watches from its creation until `close`. LabError when a namespace cannot be entered."""

    def __init__(self, spec: LabSpec) -> None:
        self._vip = ip_address(spec.vip).packed
        self._samples: list[Holders] = []
        self._stopped = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._hosts = [_Host(node.name) for node in spec.nodes]
        for host, node in zip(self._hosts, spec.nodes, strict=True):
            self._selector.register(_netlink_of(node), selectors.EVENT_READ, host)
        self._thread = threading.Thread(target=self._watch, name="holders", daemon=True)
        self._thread.start()

    def samples(self) -> list[Holders]:
        """Every change so far, the state at the start first."""
        return list(self._samples)

    def close(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _watch(self) -> None:
        for key in self._selector.get_map().values():
            assert isinstance(key.fileobj, socket.socket)
            for kind in (_GETLINK, _GETADDR):
                _ask(key.fileobj, kind)
                while not self._read(key.fileobj, key.data):
                    pass
        while not self._stopped.is_set():
            names = tuple(host.name for host in self._hosts if host.has_vip and host.has_carrier)
            if not self._samples or self._samples[-1].names != names:
                self._samples.append(Holders(time.monotonic(), names))
            for key, _ in self._selector.select(timeout=0.2):
                assert isinstance(key.fileobj, socket.socket)
                self._read(key.fileobj, key.data)

    def _read(self, link: socket.socket, host: _Host) -> bool:
        """Take one packet; True when it ends the answer to a question."""
        done = False
        for kind, body in _messages(link.recv(65536)):
            if kind == _DONE:
                done = True
            elif kind == _NEWLINK:
                _, hardware, _, flags, _ = struct.unpack_from("BxHiII", body)
                if hardware != _LOOPBACK:
                    host.has_carrier = bool(flags & _LOWER_UP)
            elif kind in (_NEWADDR, _DELADDR) and self._vip in _addresses(body):
                host.has_vip = kind == _NEWADDR
        return done


def _netlink_of(node: LabNode) -> socket.socket:
    """A netlink socket inside the node's namespace. Only a thread that then ends enters it."""
    made: list[socket.socket] = []
    problem: list[OSError] = []

    def enter() -> None:
        try:
            space = os.open(NETNS_DIR / node.netns, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            finally:
                os.close(space)
            link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            link.bind((0, _GROUPS))
            made.append(link)
        except OSError as error:
            problem.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if problem:
        raise LabError(f"namespace {node.netns} cannot be entered: {problem[0].strerror}")
    return made[0]


def _ask(link: socket.socket, kind: int) -> None:
    """Ask for all links or addresses; the answers look like changes."""
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0) if kind == _GETLINK else struct.pack("BBBBI", 0, 0, 0, 0, 0)
    link.send(struct.pack("IHHII", 16 + len(body), kind, _REQUEST_DUMP, 1, 0) + body)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]


def _addresses(body: bytes) -> Iterator[bytes]:
    rest = body[8:]
    while len(rest) >= 4:
        length, kind = struct.unpack_from("HH", rest)
        if kind in (_IFA_ADDRESS, _IFA_LOCAL):
            yield rest[4:length]
        rest = rest[max(4, (length + 3) & ~3) :]
