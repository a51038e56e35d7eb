"""Thousands of clients lose their connections at once: are they told at the rate that is configured, and do the
apiservers see them come back at that rate?"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lbha.errors import LabError
from lbha.lab import drill, lab
from lbha.lab.apiserver import ACCEPTED
from lbha.lab.load import TLS_TIMEOUT, Load
from lbha.lab.records import Watch
from lbha.lab.spec import LabSpec

FAULTS = ("drain", "power-off")
"""The old holder tells them, or, where it is dead, the new one."""

_OPEN = 180.0
_BACK = 30.0
"""Seconds that they get beyond what the rate takes."""

_KNOWN = 3.0
"""Seconds until the other agents have heard of all connections: their questions come once a second."""

_LINE = re.compile(ACCEPTED.format(count=r"(\d+)", at=r"([\d.]+)"))


@dataclass(frozen=True, slots=True)
class Stampede:
    """`clients` idle watches; `rate` is `[failover] handover_rate`. Of them `told` learnt that
    their connection was dead, the first `first_s` and the last `last_s` after the fault, `told_a_second` in
    each second from it; `back_s` is when the last was connected again. `accepted_a_second` is what all
    stand-ins for the apiserver accepted in each second."""

    fault: str
    clients: int
    rate: int
    told: int
    first_s: float
    last_s: float
    back_s: float | None
    told_a_second: list[int]
    accepted_a_second: list[int]


@contextmanager
def own_lab(setup: str, rate: int) -> Iterator[LabSpec]:
    """A lab with that `handover_rate`."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as overrides:
        overrides.write(f"[failover]\nhandover_rate = {rate}\n")
        overrides.flush()
        with drill.own_lab(setup, 3, Path(overrides.name)) as spec:
            yield spec


def stampede(spec: LabSpec, clients: int, rate: int, tell: Callable[[str], None]) -> list[Stampede]:
    """Each fault of FAULTS on the holder. LabError when the clients do not all connect before it."""
    return [_one(spec, fault, clients, rate, tell) for fault in FAULTS]


def _one(spec: LabSpec, fault: str, clients: int, rate: int, tell: Callable[[str], None]) -> Stampede:
    drill.rest(spec)
    tell(f"stampede: {clients} clients connect")
    patience = clients / rate + _BACK
    with Load(spec, clients, patience=TLS_TIMEOUT) as load:
        _open(load, clients)
        time.sleep(_KNOWN)
        tell(f"stampede: {fault}")
        injected = time.monotonic()
        lab.inject(spec, fault, lab.holders(spec)[0])
        while time.monotonic() - injected < patience and not _all_back(load.watches(), clients, injected):
            time.sleep(0.2)
        time.sleep(2.0)  # The stand-ins tell of a second when it is over.
        events, ended = load.watches(), time.monotonic()
        lab.heal(spec)
    lab.wait_healthy(spec, 60)
    told = sorted(each.at - injected for each in events if not each.connected and each.at >= injected)
    back = [each.at - injected for each in events if each.connected and each.at >= injected]
    return Stampede(
        fault=fault,
        clients=clients,
        rate=rate,
        told=len(told),
        first_s=round(told[0], 2) if told else 0.0,
        last_s=round(told[-1], 2) if told else 0.0,
        back_s=round(max(back), 2) if back and _all_back(events, clients, injected) else None,
        told_a_second=_by_second(told),
        accepted_a_second=accepted(_logs(spec), injected, ended),
    )


def _open(load: Load, clients: int) -> None:
    deadline = time.monotonic() + _OPEN
    while (now := len({each.index for each in load.watches() if each.connected})) < clients:
        if time.monotonic() > deadline:
            raise LabError(f"only {now} of {clients} clients have connected in {_OPEN:.0f} s")
        time.sleep(0.5)


def _all_back(events: Sequence[Watch], clients: int, injected: float) -> bool:
    died = {each.index for each in events if not each.connected and each.at >= injected}
    latest = {each.index: each.connected for each in events}
    return len(died) == clients and all(latest[index] for index in died)


def _by_second(seconds: Sequence[float]) -> list[int]:
    counted = Counter(int(each) for each in seconds)
    return [counted[second] for second in range(max(counted, default=-1) + 1)]


def _logs(spec: LabSpec) -> str:
    return "".join((spec.log / f"{node.name}-apiserver.log").read_text() for node in spec.nodes)


def accepted(logs: str, begin: float, end: float) -> list[int]:
    """What the stand-ins accepted in each second from `begin` to `end` (monotonic s), without last zeros."""
    counted: Counter[int] = Counter()
    for count, at in _LINE.findall(logs):
        if begin <= float(at) < end:
            counted[int(float(at) - begin)] += int(count)
    return [counted[second] for second in range(max(counted, default=-1) + 1)]
