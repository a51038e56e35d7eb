"""Tickle ACKs: a client that believes in a dead connection is made to ask, and this kernel's RST tells it.

A new holder of the VIP sends, from the VIP, an ACK with a sequence number that cannot be right. The client
answers with an ACK of its own (RFC 9293, 3.10.7.4), to a kernel that knows no such connection and resets it.
Samba's CTDB does the same.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from lbha.checksum import checksum, pseudo_header
from lbha.connections import Connection
from lbha.pause import Pause

TRIES = 3
APART = 0.6
"""Seconds between two tickles of one client: Linux answers wrong segments of a connection each 500 ms at most
(tcp_invalid_ratelimit, RFC 5961), and may have sent its first answer to the old holder's MAC address."""

STEP = 0.05
"""Seconds between two bursts."""

_TCP = struct.Struct("!HHIIBBHHH")
_ACK = 0x10
_WINDOW = 1024


def segment(key: Connection, sequence: int) -> bytes:
    """The TCP header of a tickle, from the VIP's end of a connection to the client's, with its checksum."""
    here, there = struct.unpack_from("!HH", key)
    bare = _TCP.pack(here, there, sequence, 0, _TCP.size << 2, _ACK, _WINDOW, 0, 0)
    pseudo = pseudo_header(key[4:], len(bare), socket.IPPROTO_TCP)
    return bare[:16] + struct.pack("!H", checksum(pseudo + bare)) + bare[18:]


def bursts(count: int, rate: int) -> Iterator[list[range]]:
    """Which of `count` clients each burst, one a `STEP`, is for: some for the first time, at most `rate` a
    second, and with them those whose second or third time it is."""
    size = rate * STEP
    later = round(APART / STEP)
    number = 0
    while True:
        due = []
        for attempt in range(TRIES):
            step = number - attempt * later
            if step >= 0:
                due.append(range(min(count, round(step * size)), min(count, round((step + 1) * size))))
        if len(due) == TRIES and due[-1].start >= count:
            return
        yield [each for each in due if each]
        number += 1


def tell(keys: Sequence[Connection], vips: Sequence[str], rate: int, pause: Pause) -> int:
    """Tickle these clients, in this order, as long as `pause` says that the VIP is held; how many tickles left.

    Blocks. Raises OSError as `Sender` does.
    """
    sent, began = 0, time.monotonic()
    with Sender(vips) as sender:
        for number, due in enumerate(bursts(len(keys), rate), 1):
            if not pause.wait(0.0):
                break
            for some in due:
                sent += sender.send(keys[some.start : some.stop], lambda: secrets.randbits(32))
            pause.wait(max(0.0, began + number * STEP - time.monotonic()))
    return sent


class Sender:
    """Raw sockets that are bound to the VIPs. Raises OSError: EADDRNOTAVAIL for a VIP that is not on this host,
    EPERM without CAP_NET_RAW."""

    def __init__(self, vips: Sequence[str]) -> None:
        self._sockets: dict[bytes, socket.socket] = {}
        with ExitStack() as stack:
            for vip in vips:
                family = socket.AF_INET6 if ":" in vip else socket.AF_INET
                raw = stack.enter_context(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP))
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # It gets a copy of all TCP: no use.
                raw.setblocking(False)
                raw.bind((vip, 0))
                self._sockets[socket.inet_pton(family, vip)] = raw
            self._stack = stack.pop_all()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, keys: Sequence[Connection], sequence: Callable[[], int]) -> int:
        """One tickle to each; how many left. What cannot leave now (no route, full buffer) has more tries."""
        sent = 0
        for key in keys:
            half = (len(key) - 4) // 2
            family = socket.AF_INET if half == 4 else socket.AF_INET6
            try:
                self._sockets[key[4 : 4 + half]].sendto(
                    segment(key, sequence()), (socket.inet_ntop(family, key[4 + half :]), 0)
                )
            except OSError:
                continue
            sent += 1
        return sent
