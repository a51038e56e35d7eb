"""`lbha backend`: one server of one service."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.agent_options import run_dir
from lbha.cli.common import config_option

STATES = ("drain", "ready", "maint")


@click.command()
@config_option
@click.argument("server", metavar="NAME/SERVER")
@click.argument("state", type=click.Choice(STATES))
@click.option("--force", is_flag=True, help="Although it is the last live server.")
def command(config_file: Path, server: str, state: str, force: bool) -> int:
    """Take one server of a service out of this node's haproxy, or put it back.

    \b
    drain   no new connections, those that are there go on
    maint   no connections at all, and no checks
    ready   back in the pool as soon as it passes its check

    Exit codes: 0 done, 1 refused, 2 misuse.
    """
    service, slash, name = server.partition("/")
    if not (service and slash and name):
        raise click.BadParameter(f"{server!r} is not SERVICE/SERVER, such as etcd/cp3; see lbha status")
    from lbha.agent.client import ask

    body = {"service": service, "server": name, "state": state, "force": force}
    click.echo(ask(run_dir(config_file), "POST", "/backend", body, type=dict[str, str])["text"])
    return 0
