"""`lbha drill`: break things under load, and measure what clients see."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import click

from lbha.cli.common import console
from lbha.errors import LabError
from lbha.lab.spec import OWN_SETUPS, RECIPE_PORTS


@click.command()
@click.option("--runs", metavar="N", type=click.IntRange(1), default=1, show_default=True, help="Per fault.")
@click.option("--faults", metavar="A,B", help="Which faults, in that order; every one when not given.")
@click.option(
    "--json", "json_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="All figures."
)
@click.option(
    "--setup",
    "setups",
    multiple=True,
    type=click.Choice(OWN_SETUPS),
    default=OWN_SETUPS[:1],
    show_default=True,
    help="lbha in which mode; may be repeated.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(sorted(RECIPE_PORTS)),
    help="The same against a published recipe, too; may be repeated.",
)
@click.option(
    "-c",
    "--config",
    "overrides",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML merged into the lbha.toml of lbha's own labs.",
)
@click.option("--stacked", is_flag=True, help="lbha's own labs with apiservers on 0.0.0.0:6443, as kubeadm's.")
@click.option("--lab", "lab_name", metavar="NAME", help="Use a lab that is up; else each setup gets its own.")
@click.option(
    "--nodes", metavar="N", type=click.IntRange(1, 9), default=3, show_default=True, help="Of each own lab."
)
@click.option(
    "--watches", metavar="N", type=click.IntRange(1), default=10, show_default=True, help="Idle ones."
)
@click.option(
    "--streams", metavar="N", type=click.IntRange(0), default=0, help="Watches that are busy, besides."
)
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
    setups: tuple[str, ...],
    baselines: tuple[str, ...],
    overrides: Path | None,
    stacked: bool,
    lab_name: str | None,
    nodes: int,
    watches: int,
    streams: int,
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
    from lbha.lab.series import Plan, Series

    if os.geteuid() != 0:
        raise LabError("the drill makes network namespaces: run it as root")
    chosen = ctx.get_parameter_source("setups") is not click.core.ParameterSource.DEFAULT
    if lab_name and (chosen or baselines or overrides or stacked):
        raise click.UsageError(
            "--lab is one lab that is up; --setup, --baseline, --stacked and -c need labs of their own"
        )
    plan = Plan(
        setups=tuple(dict.fromkeys((*setups, *baselines))),
        faults=drill.known(faults) if faults else None,
        runs=runs,
        clients=drill.Clients(watches, streams),
        nodes=nodes,
        window=window,
        overrides=overrides,
        stacked=stacked,
    )
    if lab_name:
        given = lab.load(lab_name)
        plan = replace(plan, setups=(given.setup,), given=given)
    if json_file:
        drill.save(json_file, [])  # So that a file that cannot be written is told now.
    clean_up_on_sigterm()
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        def ran() -> None:
            progress.advance(bar)
            if json_file:
                drill.save(json_file, series.results)

        series = Series(
            plan,
            tell=lambda what: progress.update(bar, description=what),
            expect=lambda count: progress.update(bar, total=count),
            ran=ran,
        )
        try:
            series.run()
        except KeyboardInterrupt:
            series.broken.append("interrupted")
    if series.results:
        # Every median with its worst on the same line.
        console(110).print(table(series.results))
    for line in series.broken:
        click.echo(f"lbha: {line}", err=True)
    ctx.exit(0 if not series.broken and drill.passed(series.results) else 1)


def clean_up_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, to this process alone."""
    own = os.getpid()

    def end(*_: object) -> None:
        if os.getpid() != own:
            os._exit(143)  # A fork of pyroute2, which ends it so: it must not clean up what we are building.
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
