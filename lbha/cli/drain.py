"""`lbha drain`: the VIP to another node, and not back for a while."""

from __future__ import annotations

import time
from pathlib import Path

import click

from lbha.cli.agent_options import run_dir, seconds
from lbha.cli.common import config_option
from lbha.errors import LbhaError

_LOOK = 0.1


@click.command()
@config_option
@click.option("--for", "span", metavar="DURATION", type=seconds, help="90s, 30m, 2h; else until undrained.")
@click.option("--until-boot", is_flag=True, help="It also ends when this node has booted again.")
@click.option("--reason", metavar="TEXT", default="", help="Shown by status.")
@click.option("--force", is_flag=True, help="Although nobody is known to be able to take over.")
@click.option(
    "--wait", "patience", metavar="DURATION", type=seconds, help="Until the VIP has left, at most this long."
)
def command(
    config_file: Path, span: float | None, until_boot: bool, reason: str, force: bool, patience: float | None
) -> int:
    """Move the VIP to another node before this one is worked on: new connections do not notice.

    The drain outlives a restart. A drained node takes the VIP only when nobody else can serve. With
    --until-boot, a drain that is in force already stays as it is.

    Exit codes: 0 drained, 1 refused, or the VIP has not left in time, 2 misuse.
    """
    from lbha.agent.client import ask
    from lbha.agent.words import span as told
    from lbha.facts import Status

    where = run_dir(config_file)
    wish = {"for": span, "reason": reason, "force": force, "until_boot": until_boot}
    status: Status = ask(where, "POST", "/drain", wish)
    length = "until undrained" if span is None else f"for {told(span)}"
    click.echo(f"drained {length}{', or until it boots' if until_boot else ''}; lbha undrain ends it")
    if patience is None:
        return 0
    began = time.monotonic()
    while status.report.holds_vip:
        if time.monotonic() - began > patience:
            raise LbhaError(
                f"the VIP has not left within {patience:g} s: no other node takes it; see lbha status"
            )
        time.sleep(_LOOK)
        status = ask(where, "GET", "/status")
    click.echo(f"the VIP is not here, after {time.monotonic() - began:.1f} s")
    return 0
