"""The drill, for lbha in both modes and both recipes."""

from __future__ import annotations

from lbha.errors import LabError
from lbha.lab.bench.options import Options
from lbha.lab.drill import Run
from lbha.lab.series import Plan, Series
from lbha.lab.spec import SETUPS


def measure(options: Options) -> tuple[list[Run], list[str]]:
    """The runs, and why some have no result."""
    done = [0, 0]

    def ran() -> None:
        done[0] += 1

    def expect(count: int) -> None:
        done[1] = count

    series = Series(
        Plan(setups=SETUPS, faults=options.faults, runs=options.runs),
        tell=lambda what: options.tell(f"failover: {done[0]} of {done[1]} so far: {what}"),
        expect=expect,
        ran=ran,
    )
    try:
        series.run()
    except LabError as error:  # What was measured before it is worth telling.
        series.broken.append(str(error))
    return series.results, series.broken
