"""What runs on the nodes of a lab, and what there is more of than before."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lbha.lab import processes, status
from lbha.lab.bench.idle import rss
from lbha.lab.control import Report, UnitReport, ask
from lbha.lab.spec import LabSpec

_SETTLE = 90.0
_SPARE = {"agent": 8, "keepalived": 8}
_SPARE_OF_SERVERS = 64
"""A unit may have so many more descriptors open than before. After a fault, connections of clients gather at
other servers; the agent and keepalived have none."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Processes of each program on each node, and open descriptors of each unit's main process."""

    programs: Counter[tuple[str, str]]
    descriptors: dict[tuple[str, str], int]


def inventory(spec: LabSpec) -> Inventory:
    """Of all nodes, now."""
    programs: Counter[tuple[str, str]] = Counter()
    for node in spec.nodes:
        for pid in processes.in_namespaces([node.netns]):
            programs[node.name, _program(pid)] += 1
    descriptors = {(unit.node, unit.name): _descriptors(unit.pid) for unit in _units(spec) if unit.pid}
    return Inventory(programs, descriptors)


def leaks(spec: LabSpec, before: Inventory) -> list[str]:
    """What is more than before; old haproxy workers and connections get a while to end."""
    deadline = time.monotonic() + _SETTLE
    while True:
        wrong = status.problems(status.gather(spec)) + compare(before, inventory(spec))
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


def agents_rss(spec: LabSpec) -> tuple[float, ...]:
    """MiB of each node's agent."""
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
