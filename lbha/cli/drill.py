"""`lbha drill`: break things under load, and measure what clients see."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.errors import LabError
from lbha.lab.spec import RECIPE_PORTS, SETUPS

if TYPE_CHECKING:
    from rich.progress import Progress

    from lbha.lab.drill import Run
    from lbha.lab.spec import LabSpec


@click.command()
@click.option("--runs", metavar="N", type=click.IntRange(1), default=1, show_default=True, help="Per fault.")
@click.option("--faults", metavar="A,B", help="Which faults, in that order; every one when not given.")
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(sorted(RECIPE_PORTS)),
    help="The same against a published recipe, too; may be repeated.",
)
@click.option("--lab", "lab_name", metavar="NAME", help="Use a lab that is up; else each setup gets its own.")
@click.option("--nodes", metavar="N", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option(
    "--window",
    metavar="S",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="Give a run up when clients are not served after so many seconds.",
)
@click.pass_context
def command(
    ctx: click.Context,
    runs: int,
    faults: str | None,
    json_file: Path | None,
    baselines: tuple[str, ...],
    lab_name: str | None,
    nodes: int,
    window: float,
) -> None:
    """Inject faults into a lab under load and measure what clients see.

    The faults hit the node that holds the VIP. Exit code 0 when clients were served again after every fault and
    no acknowledged write was lost, else 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lbha.lab import drill, lab
    from lbha.lab.report import table

    if os.geteuid() != 0:
        raise LabError("the drill makes network namespaces: run it as root")
    if lab_name and baselines:
        raise click.UsageError("--lab uses the one lab that is up; --baseline needs labs of its own")
    named = drill.known(faults) if faults else None
    given = lab.load(lab_name) if lab_name else None
    setups = (given.setup,) if given else (SETUPS[0], *baselines)
    if json_file:
        drill.save(json_file, [])  # So that a file that cannot be written is told now.
    _clean_up_on_sigterm()
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        series = _Series(runs, window, json_file, progress)
        try:
            for setup in setups:
                todo: list[tuple[str, int]] | None = None
                while todo is None or todo:
                    series.tell(f"{setup}: starting a lab")
                    with nullcontext(given) if given else drill.own_lab(setup, nodes) as spec:
                        if todo is None:
                            todo = [(f, n) for f in named or drill.every(spec) for n in range(1, runs + 1)]
                            progress.update(series.bar, total=len(todo) * len(setups))
                        series.until_broken(spec, todo)
                    if given:
                        break
        except KeyboardInterrupt:
            series.broken.append("interrupted")
    if series.results:
        # A file or a pipe has no width: give every median its worst on the same line.
        Console(width=None if sys.stdout.isatty() else 110).print(table(series.results))
    for line in series.broken:
        click.echo(f"lbha: {line}", err=True)
    ctx.exit(0 if not series.broken and drill.passed(series.results) else 1)


def _clean_up_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, to this process alone."""
    own = os.getpid()

    def end(*_: object) -> None:
        if os.getpid() != own:
            os._exit(143)  # A fork of pyroute2, which ends it so: it must not clean up what we are building.
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


class _Series:
    """The runs of one `lbha drill`, their results, and why some have none."""

    def __init__(self, runs: int, window: float, json_file: Path | None, progress: Progress) -> None:
        self.results: list[Run] = []
        self.broken: list[str] = []
        self.bar = progress.add_task("", total=None)
        self._runs, self._window, self._json_file, self._progress = runs, window, json_file, progress

    def tell(self, what: str) -> None:
        self._progress.update(self.bar, description=what)

    def _tell_of(self, label: str, what: str) -> None:
        self.tell(f"{label}: {what}")

    def until_broken(self, spec: LabSpec, todo: list[tuple[str, int]]) -> None:
        """Do what is left in `todo`, until the lab does not get well any more: then it must be replaced."""
        from lbha.lab import drill

        while todo:
            fault, number = todo.pop(0)
            label = f"{spec.setup} {fault} {number}/{self._runs}"
            try:
                run = drill.one(spec, fault, number, self._window, partial(self._tell_of, label))
            except LabError as error:
                self.broken.append(f"{label}: {error}")
                return
            finally:
                self._progress.advance(self.bar)
            self.results.append(run)
            if self._json_file:
                drill.save(self._json_file, self.results)
