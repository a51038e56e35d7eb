"""What was measured, as values, and the table of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: every value in `unit`, in the order in which they came. Larger is worse."""

    part: str
    what: str
    unit: str
    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def worst(self) -> float:
        """The largest."""
        return max(self.values)


def table(figures: Sequence[Figure]) -> Table:
    """A line a figure; the name of a part only where it begins."""
    made = Table(title="lbha: what it costs", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    made.add_column("part", no_wrap=True)
    made.add_column("what")
    for name in ("median", "worst"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("unit", no_wrap=True)
    made.add_column("n", justify="right")
    before = None
    for each in figures:
        part = each.part if each.part != before else ""
        before = each.part
        made.add_row(part, each.what, number(each.middle), number(each.worst), each.unit, str(len(each.values)))
    return made


def number(value: float) -> str:
    """Three digits that count; no digits behind the point from 100 on."""
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def share_of_a_core(ticks: int, seconds: float, ticks_per_second: int) -> float:
    """CPU time in % of one core."""
    return 100.0 * ticks / ticks_per_second / seconds
