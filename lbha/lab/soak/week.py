"""Hundreds of random faults and heals with a fixed seed: is everything as it was before?"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lbha.errors import LabError
from lbha.lab import drill, lab
from lbha.lab.load import Load
from lbha.lab.soak.inventory import agents_rss, inventory, leaks
from lbha.lab.spec import LabSpec

CHUNK = 20
"""Faults under one load, after which its writes are looked for: a bounded number of keys."""

_HEALTHY = 120.0


@dataclass(frozen=True, slots=True)
class Week:
    """`faults` were done, `kinds` of each how many; `wrong` is what was not as before at the end."""

    faults: int
    seed: int
    kinds: dict[str, int]
    acknowledged_writes: int
    lost_writes: int
    agent_rss: tuple[float, ...]
    wrong: list[str]


def week(spec: LabSpec, count: int, seed: int, tell: Callable[[str], None]) -> Week:
    """Single faults and pairs of them on random nodes, each healed before the next. LabError when the lab does
    not get well after one."""
    choose = random.Random(seed)
    kinds = drill.every(spec)
    drill.rest(spec)
    before = inventory(spec)
    done: Counter[str] = Counter()
    acknowledged = lost = 0
    while done.total() < count:
        tell(f"week: {done.total()} of {count} faults")
        with Load(spec) as load:
            for _ in range(min(CHUNK, count - done.total())):
                done[_break_and_heal(spec, choose, kinds)] += 1
            load.probe()
            verdict = load.verify()
        acknowledged, lost = acknowledged + verdict.acknowledged, lost + verdict.lost
    drill.rest(spec)
    return Week(
        faults=done.total(),
        seed=seed,
        kinds=dict(sorted(done.items())),
        acknowledged_writes=acknowledged,
        lost_writes=lost,
        agent_rss=agents_rss(spec),
        wrong=leaks(spec, before),
    )


def _break_and_heal(spec: LabSpec, choose: random.Random, kinds: tuple[str, ...]) -> str:
    """One fault; now and then a second one beside it, which is not counted."""
    kind = choose.choice(kinds)
    pair = choose.random() < 0.25
    wait, node, second = choose.uniform(0.3, 5.0), choose.choice(spec.nodes), choose.choice(kinds)
    try:
        lab.inject(spec, kind, None if kind == "etcd-leader-kill" else node.name)
        if pair and second != "etcd-leader-kill":
            time.sleep(choose.uniform(0.0, 1.0))
            _perhaps(spec, second, choose.choice(spec.nodes).name)
        time.sleep(wait)
    finally:
        lab.heal(spec)
    try:
        lab.wait_healthy(spec, _HEALTHY)
    except LabError as error:
        raise LabError(f"after {kind} on {node.name}{f' and {second}' if pair else ''}: {error}") from None
    return kind


def _perhaps(spec: LabSpec, kind: str, node: str) -> None:
    """A second fault that the first may have made impossible: nobody freezes what is dead."""
    try:
        lab.inject(spec, kind, node)
    except LabError:
        pass
