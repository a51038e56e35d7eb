"""`lbha events`: what happened on this node."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.agent_options import run_dir
from lbha.cli.common import config_option


@click.command()
@config_option
@click.option(
    "-n", "count", metavar="N", type=click.IntRange(1), default=50, show_default=True, help="The last N."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(config_file: Path, count: int, as_json: bool) -> int:
    """Moves of the VIP and their causes, faults, drains, applies, servers, quorum, peers; oldest first."""
    import msgspec

    from lbha.agent.client import ask
    from lbha.agent.events import Event
    from lbha.agent.words import moment

    for event in ask(run_dir(config_file), "GET", f"/events?n={count}", type=list[Event]):
        if as_json:
            click.echo(msgspec.json.encode(event))
        else:
            click.echo(f"{moment(event.at)}  {event.kind:<13}  {event.text}")
    return 0
