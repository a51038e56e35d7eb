"""What a drill measured (`lbha drill --json FILE`), beside what was computed. Pure, but for `load`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from lbha.errors import LbhaError
from lbha.forecast.bounds import Bound
from lbha.timing import DRILL_REQUEST


class Run(msgspec.Struct, frozen=True):
    """Of one run of the drill (`lbha.lab.drill.Run`) what is compared. `gap_ms`: the longest time between the
    starts of two served requests; `client_lag_ms`: how late the drill's client itself was at worst."""

    fault: str
    setup: str
    gap_ms: float
    client_lag_ms: float
    recovered: bool

    @property
    def seen_to_within(self) -> float:
        """A service that never failed shows a gap of one interval; one that fails between two requests is seen
        from the request before to the request after; a client that is late asks later (s)."""
        return 2 * DRILL_REQUEST + self.client_lag_ms / 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """The runs of one fault, in seconds. `allowed`: what the drill might have shown of the computed time in the
    run that came closest to it; None where nothing was computed. `above`: the runs that showed more."""

    runs: int
    median: float
    worst: float
    allowed: float | None
    above: int


def load(path: Path) -> tuple[Run, ...]:
    """The runs in that file. LbhaError when it holds none, or cannot be read."""
    try:
        runs = msgspec.json.decode(path.read_bytes(), type=tuple[Run, ...])
    except OSError as error:
        raise LbhaError(f"--drill {path}: {error.strerror}; `lbha drill --json FILE` writes it") from None
    except msgspec.DecodeError as error:
        raise LbhaError(f"--drill {path}: {error}; `lbha drill --json FILE` writes it") from None
    if not runs:
        raise LbhaError(f"--drill {path}: it holds no run; `lbha drill --json FILE` writes it")
    return runs


def beside(bound: Bound, runs: Iterable[Run]) -> Measured | None:
    """The runs of that fault in that mode; None when there are none."""
    own = [run for run in runs if (run.fault, run.setup) == (bound.fault, f"lbha-{bound.mode}")]
    if not own:
        return None
    gaps = [run.gap_ms / 1000 for run in own]
    allowed = None
    if bound.clients is not None:
        closest = max(own, key=lambda run: run.gap_ms / 1000 - run.seen_to_within)
        allowed = bound.clients + closest.seen_to_within
    return Measured(len(own), median(gaps), max(gaps), allowed, sum(_above(bound, run) for run in own))


def _above(bound: Bound, run: Run) -> bool:
    if bound.clients is None:
        return False
    return not run.recovered or run.gap_ms / 1000 - run.seen_to_within > bound.clients
