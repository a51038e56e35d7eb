"""The drill's table: a line for each fault and setup, the median of its runs and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich import box
from rich.table import Table

from lbha.lab.drill import Run

_COLUMNS = ("gap s", "failed", "cut", "last s", "back s", "lost", "moved")
_BUSY = "busy back s"


def table(runs: Sequence[Run]) -> Table:
    """Faults in the order in which they were done; the setups of one fault below each other."""
    apiservers = sorted({run.apiserver for run in runs})
    made = Table(
        title="What clients saw: median (worst)",
        caption="gap: longest time without a served request; cut: under way when the fault came; last: until "
        "the last failure; back: until the last idle watch was; lost: acknowledged writes; moved: runs in "
        f"which the VIP changed holder. {_splits(runs)}"
        f"apiserver: {', '.join(apiservers)}.",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    made.add_column("fault", no_wrap=True)
    made.add_column("setup", no_wrap=True)
    busy = any(run.streams for run in runs)
    for name in (*_COLUMNS, _BUSY) if busy else _COLUMNS:
        made.add_column(name, justify="right")
    for fault in dict.fromkeys(run.fault for run in runs):
        for setup in dict.fromkeys(run.setup for run in runs):
            some = [run for run in runs if (run.fault, run.setup) == (fault, setup)]
            if some:
                made.add_row(fault, setup, *_cells(some), *([_busy(some)] if busy else []))
    return made


def _cells(runs: Sequence[Run]) -> tuple[str, ...]:
    gone = "" if all(run.recovered for run in runs) else " not back"
    return (
        _seconds([run.gap_ms for run in runs]) + gone,
        _both([run.failed for run in runs], "{:.0f}"),
        _both([run.cut for run in runs], "{:.0f}"),
        _seconds([run.last_failure_ms or 0.0 for run in runs]) if any(run.failed for run in runs) else "-",
        _back([(run.watches_unaware, run.watch_recovery_ms) for run in runs]),
        str(sum(run.lost_writes for run in runs)),
        f"{sum(run.moved for run in runs)}/{len(runs)}",
    )


def _busy(runs: Sequence[Run]) -> str:
    return _back([(run.streams_unaware, run.stream_recovery_ms) for run in runs])


def _back(results: Sequence[tuple[int, float | None]]) -> str:
    """Of each run how many watches knew nothing at the end, and when the last was back (ms)."""
    back = [ms for _, ms in results if ms is not None]
    if len(back) == len(results):
        return _seconds(back)
    unaware = max(count for count, _ in results)
    return f"{unaware} unaware" if unaware else "not back"


def _splits(runs: Sequence[Run]) -> str:
    """Where the VIP had two holders, and for how long: nothing where it never had."""
    worst: dict[str, float] = {}
    for run in runs:
        name = f"{run.fault} {run.setup}"
        worst[name] = max(worst.get(name, 0.0), run.two_holders_ms)
    told = [f"{name} {ms:.0f} ms" for name, ms in worst.items() if ms >= 1]
    return f"Two holders at worst for: {', '.join(told)}. " if told else ""


def _seconds(values_ms: Sequence[float]) -> str:
    return _both([value / 1000 for value in values_ms], "{:.2f}")


def _both(values: Sequence[float], form: str) -> str:
    middle, worst = form.format(median(values)), form.format(max(values))
    return middle if middle == worst else f"{middle} ({worst})"
