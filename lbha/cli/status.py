"""`lbha status`: this node and its peers, as the agent sees them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.agent_options import run_dir
from lbha.cli.common import config_option, console
from lbha.errors import LbhaError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lbha.facts import Status

EVERY = 1.0
"""Seconds between two looks with --watch."""


@click.command()
@config_option
@click.option("--watch", is_flag=True, help="Again each second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(config_file: Path, watch: bool, as_json: bool) -> int:
    """Who holds the VIP and with which priority, every backend, discovery, etcd, and what is wrong.

    Exit codes: 0 healthy, 1 something is wrong or no agent answers, 2 misuse.
    """
    if watch and as_json:
        raise click.UsageError("--watch goes without --json")
    from lbha.agent.client import ask
    from lbha.agent.problems import problems

    where = run_dir(config_file)
    if watch:
        _watch(where)
        return 0
    found: Status = ask(where, "GET", "/status")
    now = time.time()
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        from lbha.agent import show

        console().print(show.status(found, now))
    return 1 if any(problem.wrong for problem in problems(found, now)) else 0


def _watch(where: str) -> None:
    from rich.live import Live

    with Live(_look(where), console=console(), screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(EVERY)
                live.update(_look(where), refresh=True)
        except KeyboardInterrupt:
            return


def _look(where: str) -> RenderableType:
    """Also that no agent answers is something to watch."""
    from rich.text import Text

    from lbha.agent import show
    from lbha.agent.client import ask

    try:
        return show.status(ask(where, "GET", "/status"), time.time())
    except LbhaError as error:
        return Text(str(error), show.BAD)
