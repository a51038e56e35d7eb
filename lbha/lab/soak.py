"""`scripts/soak`: what only time shows. Needs root.

stress   busy loops on every core for half an hour: how often does the VIP move?
leaders  etcd's leader crashes again and again under load: what do clients see of it?
week     hundreds of random faults and heals with a fixed seed: afterwards everything is as it was before
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from lbha.cli.drill import clean_up_on_sigterm
from lbha.errors import LabError, LbhaError
from lbha.lab import drill, lab, processes, status
from lbha.lab.bench.idle import rss
from lbha.lab.control import Report, UnitReport, ask
from lbha.lab.holders import HolderWatch
from lbha.lab.load import Load
from lbha.lab.measure import Figures, figures
from lbha.lab.records import Attempt, Request, Verdict, Write
from lbha.lab.spec import SETUPS, LabSpec

CHUNK = 20
"""Faults under one load, after which its writes are looked for: a bounded number of keys."""

_ELECTION = 4.0
"""Seconds after a leader's crash in which clients are watched before it returns; an election takes 1 to 2."""

_HEALTHY = 120.0
_SETTLE = 90.0
_SPARE = {"agent": 8, "keepalived": 8}
_SPARE_OF_SERVERS = 64
"""A unit may have so many more descriptors open than before. After a fault, connections of clients gather at
other servers; the agent and keepalived have none."""


@dataclass(frozen=True, slots=True)
class Stress:
    """`moves` counts the changes of holder in `minutes`. `agent_rss` (MiB) is of each node before and after."""

    minutes: float
    moves: int
    agent_rss: tuple[tuple[float, ...], tuple[float, ...]]
    holders: list[tuple[float, list[str]]]


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


def stress(spec: LabSpec, minutes: float) -> Stress:
    """The busy loops of `cpu-stress` run on all cores of the machine, whatever node they belong to."""
    drill.rest(spec)
    with closing(HolderWatch(spec)) as watch, Load(spec):
        time.sleep(2)
        memory, began = _agents(spec), time.monotonic()
        lab.inject(spec, "cpu-stress")
        time.sleep(minutes * 60)
        seen = watch.samples()
        lab.heal(spec)
    changes = [(round(max(0.0, each.at - began), 2), list(each.names)) for each in seen]
    return Stress(minutes, len(changes) - 1, (memory, _agents(spec)), changes)


def week(spec: LabSpec, count: int, seed: int, tell: Callable[[str], None]) -> Week:
    """Single faults and pairs of them on random nodes, each healed before the next. LabError when the lab does
    not get well after one."""
    choose = random.Random(seed)
    kinds = drill.every(spec)
    drill.rest(spec)
    before = _inventory(spec)
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
        agent_rss=_agents(spec),
        wrong=_leaks(spec, before),
    )


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


@dataclass(frozen=True, slots=True)
class Inventory:
    """Processes of each program on each node, and open descriptors of each unit's main process."""

    programs: Counter[tuple[str, str]]
    descriptors: dict[tuple[str, str], int]


def _inventory(spec: LabSpec) -> Inventory:
    programs: Counter[tuple[str, str]] = Counter()
    for node in spec.nodes:
        for pid in processes.in_namespaces([node.netns]):
            programs[node.name, _program(pid)] += 1
    descriptors = {(unit.node, unit.name): _descriptors(unit.pid) for unit in _units(spec) if unit.pid}
    return Inventory(programs, descriptors)


def _leaks(spec: LabSpec, before: Inventory) -> list[str]:
    """What is more than before; old haproxy workers and connections get a while to end."""
    deadline = time.monotonic() + _SETTLE
    while True:
        wrong = status.problems(status.gather(spec)) + compare(before, _inventory(spec))
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(1.0)


def compare(before: Inventory, after: Inventory) -> list[str]:
    """What there is more of now, or less of, one line each."""
    wrong = []
    for node, program in sorted({*before.programs, *after.programs}):
        was, is_ = before.programs[node, program], after.programs[node, program]
        # The track script's processes come and go with each second.
        if was != is_ and program not in ("lbha", "lbha-track", "sh"):
            wrong.append(f"{node}: {was} processes {program} before, {is_} now")
    for (node, unit), now in sorted(after.descriptors.items()):
        was = before.descriptors.get((node, unit), 0)
        if now > was + _SPARE.get(unit, _SPARE_OF_SERVERS):
            wrong.append(f"{node}: {unit} had {was} descriptors before and has {now} now")
    return wrong


def _units(spec: LabSpec) -> tuple[UnitReport, ...]:
    return ask(spec, Report()).units


def _agents(spec: LabSpec) -> tuple[float, ...]:
    return tuple(round(rss(unit.pid), 1) for unit in _units(spec) if unit.name == "agent" and unit.pid)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "lbha"  # It has ended meanwhile.


def _descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


@click.command()
@click.option("--only", type=click.Choice(["stress", "leaders", "week"]), help="One part; all when not given.")
@click.option("--minutes", metavar="M", type=float, default=30.0, show_default=True, help="Of stress.")
@click.option(
    "--faults", metavar="N", type=click.IntRange(1), default=300, show_default=True, help="In the week."
)
@click.option(
    "--crashes", metavar="N", type=click.IntRange(1), default=50, show_default=True, help="Of leaders."
)
@click.option("--seed", metavar="S", type=int, default=1, show_default=True, help="Of the week.")
@click.option("--setup", type=click.Choice(SETUPS[:2]), default=SETUPS[0], show_default=True)
def command(only: str | None, minutes: float, faults: int, crashes: int, seed: int, setup: str) -> int:
    """Long tests of lbha. Results are JSON on stdout; exit code 0 when all are good, else 1."""
    if os.geteuid() != 0:
        raise LabError("the soak makes network namespaces: run it as root")
    clean_up_on_sigterm()
    good = True
    if only in (None, "stress"):
        with drill.own_lab(setup, 3) as spec:
            stressed = stress(spec, minutes)
        _print(stressed)
        good = stressed.moves == 0
    if only in (None, "leaders"):
        with drill.own_lab(setup, 3) as spec:
            led = leaders(spec, crashes, lambda what: click.echo(f"  {what}", err=True))
        _print(led)
        good = good and (led.failed, led.unconnected, led.lost_writes, led.moves) == (0, 0, 0, 0)
    if only in (None, "week"):
        with drill.own_lab(setup, 3) as spec:
            lived = week(spec, faults, seed, lambda what: click.echo(f"  {what}", err=True))
        _print(lived)
        good = good and not lived.wrong and lived.lost_writes == 0
    return 0 if good else 1


def _print(result: Stress | Leaders | Week) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode({type(result).__name__.lower(): result})).decode())


if __name__ == "__main__":
    try:
        sys.exit(command(prog_name="soak", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LbhaError as error:
        click.echo(f"soak: {error}", err=True)
        sys.exit(error.exit_code)
