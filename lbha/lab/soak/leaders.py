"""etcd's leader crashes again and again: what do clients see of it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from lbha.lab import drill, lab
from lbha.lab.holders import HolderWatch
from lbha.lab.load import Load
from lbha.lab.measure import Figures, figures
from lbha.lab.records import Attempt, Request, Verdict, Write
from lbha.lab.spec import LabSpec

CHUNK = 20
"""Crashes under one load, after which its writes are looked for: a bounded number of keys."""

_ELECTION = 4.0
"""Seconds after a leader's crash in which clients are watched before it returns; an election takes 1 to 2."""

_HEALTHY = 120.0


@dataclass(frozen=True, slots=True)
class Leaders:
    """`crashes` of etcd's leader. `failed` of the requests to the apiserver began after a crash, `cut` were
    under way. `unwritten` writes to etcd began after it and were not answered in time, or refused by etcd
    itself, as while it elects; of all that failed, `unconnected` did not even get a connection. `write_gap_ms`
    is the longest without a write, `moves` are changes of holder."""

    crashes: int
    requests: int
    failed: int
    cut: int
    writes: int
    unwritten: int
    unconnected: int
    write_gap_ms: float
    acknowledged_writes: int
    lost_writes: int
    moves: int


def leaders(spec: LabSpec, count: int, tell: Callable[[str], None]) -> Leaders:
    """Crash the leader, let the others elect and clients go on, heal, `count` times. LabError when the lab does
    not get well after one."""
    drill.rest(spec)
    blocks: list[_Block] = []
    while (done := sum(len(block.crashes) for block in blocks)) < count:
        tell(f"leaders: {done} of {count} crashes")
        blocks.append(_crash_leaders(spec, min(CHUNK, count - done)))
    requests = [each for block in blocks for each in block.fared(block.requests)]
    writes = [each for block in blocks for each in block.fared(block.writes)]
    unconnected = sum(n for each in writes for why, n in each.errors.items() if why in ("refused", "tls"))
    return Leaders(
        crashes=count,
        requests=sum(each.count for each in requests),
        failed=sum(each.failed for each in requests),
        cut=sum(each.cut for each in requests),
        writes=sum(each.count for each in writes),
        unwritten=sum(each.failed for each in writes),
        unconnected=unconnected,
        write_gap_ms=max(each.gap_ms for each in writes),
        acknowledged_writes=sum(block.verdict.acknowledged for block in blocks),
        lost_writes=sum(block.verdict.lost for block in blocks),
        moves=sum(block.moves for block in blocks),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """Crashes under one load: when each began and was done (s), and what clients saw."""

    crashes: list[tuple[float, float]]
    ended: float
    requests: list[Request]
    writes: list[Write]
    verdict: Verdict
    moves: int

    def fared(self, attempts: Sequence[Attempt]) -> Iterator[Figures]:
        """The figures of each crash, until the next one."""
        ends = [*(began for began, _ in self.crashes[1:]), self.ended]
        for (began, done), end in zip(self.crashes, ends, strict=True):
            yield figures([each for each in attempts if each.end < end], began, end, done)


def _crash_leaders(spec: LabSpec, count: int) -> _Block:
    crashes = []
    with closing(HolderWatch(spec)) as watch, Load(spec) as load:
        drill.warm(load)
        for _ in range(count):
            began = time.monotonic()
            lab.inject(spec, "etcd-leader-kill")
            crashes.append((began, time.monotonic()))
            time.sleep(_ELECTION)
            lab.heal(spec)
            lab.wait_healthy(spec, _HEALTHY)
        ended = time.monotonic()
        load.probe()
        moves = len(watch.samples()) - 1
        verdict = load.verify()
        return _Block(crashes, ended, load.requests(), load.writes(), verdict, moves)
