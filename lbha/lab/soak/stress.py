"""Busy loops on every core: how often does the VIP move?"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from lbha.lab import drill, lab
from lbha.lab.holders import HolderWatch
from lbha.lab.load import Load
from lbha.lab.soak.inventory import agents_rss
from lbha.lab.spec import LabSpec


@dataclass(frozen=True, slots=True)
class Stress:
    """`moves` counts the changes of holder in `minutes`. `agent_rss` (MiB) is of each node before and after."""

    minutes: float
    moves: int
    agent_rss: tuple[tuple[float, ...], tuple[float, ...]]
    holders: list[tuple[float, list[str]]]


def stress(spec: LabSpec, minutes: float) -> Stress:
    """The busy loops of `cpu-stress` run on all cores of the machine, whatever node they belong to."""
    drill.rest(spec)
    with closing(HolderWatch(spec)) as watch, Load(spec):
        time.sleep(2)
        memory, began = agents_rss(spec), time.monotonic()
        lab.inject(spec, "cpu-stress")
        time.sleep(minutes * 60)
        seen = watch.samples()
        lab.heal(spec)
    changes = [(round(max(0.0, each.at - began), 2), list(each.names)) for each in seen]
    return Stress(minutes, len(changes) - 1, (memory, agents_rss(spec)), changes)
