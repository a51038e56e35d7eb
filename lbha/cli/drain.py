"""`lbha drain`: the VIP to another node, and not back for a while."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.agent_options import run_dir, seconds
from lbha.cli.common import config_option


@click.command()
@config_option
@click.option("--for", "span", metavar="DURATION", type=seconds, help="90s, 30m, 2h; else until undrained.")
@click.option("--reason", metavar="TEXT", default="", help="Shown by status.")
@click.option("--force", is_flag=True, help="Although nobody is known to be able to take over.")
def command(config_file: Path, span: float | None, reason: str, force: bool) -> int:
    """Move the VIP to another node before this one is worked on: new connections do not notice.

    The drain outlives a restart. A drained node takes the VIP only when nobody else can serve.

    Exit codes: 0 drained, 1 refused, 2 misuse.
    """
    from lbha.agent.client import ask
    from lbha.agent.words import span as told

    ask(run_dir(config_file), "POST", "/drain", {"for": span, "reason": reason, "force": force})
    click.echo(f"drained {'until undrained' if span is None else f'for {told(span)}'}; lbha undrain ends it")
    return 0
