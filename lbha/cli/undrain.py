"""`lbha undrain`: this node may hold the VIP again."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.agent_options import run_dir
from lbha.cli.common import config_option


@click.command()
@config_option
def command(config_file: Path) -> int:
    """End a drain. The VIP does not come back by itself, unless failback = true."""
    from lbha.agent.client import ask

    ask(run_dir(config_file), "POST", "/undrain")
    click.echo("undrained: this node is a candidate again")
    return 0
