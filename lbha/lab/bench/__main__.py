"""`scripts/bench`: every part, one table, and a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
from rich.console import Console

from lbha.cli.drill import clean_up_on_sigterm
from lbha.errors import LabError, LbhaError
from lbha.lab import drill, report
from lbha.lab.bench import check, failover, idle, live, render
from lbha.lab.bench.figures import Figure, table
from lbha.lab.bench.options import Options
from lbha.lab.drill import Run

PARTS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "check": check.measure,
    "idle": idle.measure,
    "live": live.measure,
    "render": render.measure,
}
"""Every part but the failover, whose table is the drill's."""


class Results(msgspec.Struct):
    """What the file holds. `broken` says why something has no result."""

    failover: list[Run] = []
    figures: list[Figure] = []
    broken: list[str] = []


@click.command()
@click.option("--only", metavar="A,B", help=f"Which parts: failover, {', '.join(PARTS)}; all when not given.")
@click.option(
    "--runs", metavar="N", type=click.IntRange(1), default=3, show_default=True, help="Of each thing."
)
@click.option("--faults", metavar="A,B", help="Which failovers; every one when not given.")
@click.option(
    "--idle", metavar="S", type=click.FloatRange(1), default=300.0, show_default=True, help="Watch idle agents."
)
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def command(only: str | None, runs: int, faults: str | None, idle: float, json_file: Path | None) -> int:
    """Measure lbha, beside the published recipes where there is something to compare.

    Exit code 0 when everything was measured, else 1.
    """
    parts = only.split(",") if only else ["failover", *PARTS]
    if unknown := sorted(set(parts) - {"failover", *PARTS}):
        raise click.UsageError(f"--only: no part {unknown[0]!r}; there are failover, {', '.join(PARTS)}")
    if os.geteuid() != 0:
        raise LabError("the bench makes network namespaces: run it as root")
    options = Options(runs, idle, drill.known(faults) if faults else None, _tell)
    results = Results()
    clean_up_on_sigterm()
    try:
        for part in parts:
            _measure(part, options, results)
            if json_file:
                _save(json_file, results)
    except KeyboardInterrupt:
        results.broken.append("interrupted")
    console = Console(width=None if sys.stdout.isatty() else 110)
    if results.failover:
        console.print(report.table(results.failover))
    if results.figures:
        console.print(table(results.figures))
    for line in results.broken:
        click.echo(f"bench: {line}", err=True)
    return 1 if results.broken else 0


def _measure(part: str, options: Options, results: Results) -> None:
    if part == "failover":
        runs, broken = failover.measure(options)
        results.failover += runs
        results.broken += broken
        return
    try:
        for figure in PARTS[part](options):
            results.figures.append(figure)
    except LbhaError as error:
        results.broken.append(f"{part}: {error}")


def _save(path: Path, results: Results) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    except OSError as error:
        raise LabError(f"--json {path}: {error.strerror}") from None


def _tell(what: str) -> None:
    click.echo(f"  {what}", err=True)


def main() -> None:
    """Run it; every LbhaError is one line."""
    try:
        sys.exit(command(prog_name="bench", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LbhaError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
