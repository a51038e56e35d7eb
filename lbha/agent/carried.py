"""Which connections the holder of the VIP carries: read from its kernel, told to the others, heard by them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass

from lbha import inet_diag
from lbha.connections import (
    BadDelta,
    Connection,
    applied,
    as_clients_see,
    bounded,
    decode,
    delta,
    encode,
    vip_ends,
)
from lbha.errors import LbhaError
from lbha.model import Cluster

READ_SHARE = 0.03
"""Of a core, at most, goes into reading the kernel, however many ask: 20,000 connections, which take 32 ms, are
read once a second; fewer are read whenever somebody asks, twice a second each."""

KEPT = 3
"""Generations that the next delta may start from: each peer has the last one or the one before."""

HEARD_FOR = 60.0
"""Seconds that what a holder carried is worth anything. Too old is harmless: a tickle for a connection that has
ended makes its client reset it once more."""

_TOKEN = 16
_NONE = bytes(_TOKEN)


class Carried:
    """This node's own. `count` is how many there were at the last look; None when the last is long ago."""

    def __init__(self, cluster: Cluster) -> None:
        self.dropped = 0
        """Connections that the others are not told, because there are too many."""
        self._ends = vip_ends(cluster)
        self._generations: dict[bytes, frozenset[Connection]] = {}
        self._answers: dict[bytes, bytes] = {}
        self._read_at = self._read_again = 0.0
        self._reading = asyncio.Lock()

    @property
    def count(self) -> int | None:
        if not self._generations or time.monotonic() - self._read_at > 5.0:
            return None
        return len(self._generations[self._latest]) + self.dropped

    def read(self) -> Set[Connection]:
        """What this node carries now, with the ports that clients know. Blocks. Raises OSError."""
        return as_clients_see(inet_diag.established(self._ends), self._ends)

    async def answer(self, since: str) -> bytes:
        """What a peer needs that has the generation `since` (hex; anything else: none). LbhaError."""
        async with self._reading:
            began = time.monotonic()
            if began >= self._read_again:
                try:
                    self._note(*bounded(await asyncio.to_thread(self.read)))
                    self._read_again = self._read_at + (self._read_at - began) / READ_SHARE
                except OSError as error:
                    raise LbhaError(f"sock_diag: {error.strerror or error}") from None
        try:
            base = bytes.fromhex(since[: 2 * _TOKEN])
        except ValueError:
            base = _NONE
        if base not in self._generations:
            base = _NONE
        if base not in self._answers:
            before = self._generations.get(base, frozenset())
            change = delta(before, self._generations[self._latest], self.dropped)
            self._answers[base] = base + self._latest + encode(change)
        return self._answers[base]

    @property
    def _latest(self) -> bytes:
        return next(reversed(self._generations))

    def _note(self, now: frozenset[Connection], dropped: int) -> None:
        self._read_at = time.monotonic()
        if self._generations and (now, dropped) == (self._generations[self._latest], self.dropped):
            return
        self.dropped = dropped
        self._answers.clear()
        self._generations[secrets.token_bytes(_TOKEN)] = now
        while len(self._generations) > KEPT:
            del self._generations[next(iter(self._generations))]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one holder carried: its generation, the connections, how many more it has, when (monotonic)."""

    generation: bytes
    connections: frozenset[Connection]
    dropped: int
    at: float


class HeardConnections:
    """What the others carried when they held the VIP, as far as this node heard."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}

    def since(self, node: str) -> str:
        """The generation that is known of that node, for `Carried.answer`."""
        heard = self._heard.get(node)
        return heard.generation.hex() if heard else ""

    def take(self, node: str, answer: bytes) -> None:
        """Its answer. Raises BadDelta; the next question then asks for everything."""
        heard = self._heard.get(node)
        base, generation = answer[:_TOKEN], answer[_TOKEN : 2 * _TOKEN]
        try:
            if base != _NONE and (heard is None or heard.generation != base):
                raise BadDelta("from a generation that was not asked for")
            change = decode(answer[2 * _TOKEN :])
            before = heard.connections if heard and base != _NONE else frozenset[Connection]()
            now = applied(before, change)
        except BadDelta:
            self._heard.pop(node, None)
            raise
        self._heard[node] = Heard(generation, now, change.dropped, time.monotonic())

    def fresh(self) -> Mapping[str, Heard]:
        """By node, what is not too old; the rest is forgotten."""
        oldest = time.monotonic() - HEARD_FOR
        self._heard = {node: heard for node, heard in self._heard.items() if heard.at >= oldest}
        return self._heard

    def connections(self) -> frozenset[Connection]:
        """All that is fresh."""
        return frozenset().union(*(heard.connections for heard in self.fresh().values()))

    def forget(self) -> None:
        """They have been told."""
        self._heard.clear()
