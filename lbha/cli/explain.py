"""`lbha explain`: why this node holds the VIP or not, and what would happen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.agent_options import run_dir
from lbha.cli.common import config_option, load_cluster

if TYPE_CHECKING:
    from lbha.facts import Status


@click.command()
@config_option
@click.option(
    "--if-dies",
    "failures",
    metavar="NODE[/PART]",
    multiple=True,
    help="What would happen: cp1, cp1/haproxy, cp1/keepalived, cp1/agent, cp3/etcd. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(config_file: Path, failures: tuple[str, ...], as_json: bool) -> int:
    """Why this node holds the VIP or not, what moved it last, and what would.

    Exit codes: 0 explained, 1 no agent answers, 2 misuse.
    """
    import msgspec

    from lbha.agent.client import ask
    from lbha.agent.events import KEEP, Event
    from lbha.agent.explain import explain, lines
    from lbha.outcome import after

    where = run_dir(config_file)
    cluster = load_cluster(config_file) if failures else None
    status: Status = ask(where, "GET", "/status")
    events = ask(where, "GET", f"/events?n={KEEP}", type=list[Event])
    outcomes = [after(cluster, status, failure) for failure in failures] if cluster else []
    now = time.time()
    found = explain(status, events, outcomes, now)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        click.echo("\n".join(lines(found, now)))
    return 0
