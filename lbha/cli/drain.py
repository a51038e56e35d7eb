"""`lbha drain`: the VIP to another node, and not back for a while."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.agent_options import run_dir, seconds
from lbha.cli.common import config_option, load_cluster
from lbha.errors import LbhaError

_LOOK = 0.1


@click.command()
@config_option
@click.option("--for", "span", metavar="DURATION", type=seconds, help="90s, 30m, 2h; else until undrained.")
@click.option("--until-boot", is_flag=True, help="It also ends when this node has booted again.")
@click.option("--reason", metavar="TEXT", default="", help="Shown by status.")
@click.option("--force", is_flag=True, help="Although nobody is known to be able to take over.")
@click.option(
    "--wait",
    "patience",
    metavar="DURATION",
    type=seconds,
    help="Until the VIP and its clients have left, at most this long.",
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
    from lbha.engine import Deadline
    from lbha.facts import Status

    where = run_dir(config_file)
    wish = {"for": span, "reason": reason, "force": force, "until_boot": until_boot}
    status: Status = ask(where, "POST", "/drain", wish)
    length = "until undrained" if span is None else f"for {told(span)}"
    click.echo(f"drained {length}{', or until it boots' if until_boot else ''}; lbha undrain ends it")
    if patience is None:
        return 0
    deadline = Deadline(patience)
    while status.report.holds_vip:
        if not deadline.wait(_LOOK):
            raise LbhaError(
                f"the VIP has not left within {patience:g} s: no other node takes it; see lbha status"
            )
        status = ask(where, "GET", "/status")
    # The agent ends its sessions at `handover_rate`; who stops haproxy now ends the rest at once.
    while (left := _carried(config_file)) and deadline.wait(_LOOK):
        pass
    click.echo(f"the VIP is not here; {left} of its connections are left")
    return 0


def _carried(config_file: Path) -> int:
    """Connections through the VIP that this node's kernel still has; 0 where lbha.toml does not say."""
    from lbha import inet_diag
    from lbha.connections import as_clients_see, vip_ends

    try:
        at = vip_ends(load_cluster(config_file))
        return len(as_clients_see(inet_diag.established(at), at))
    except (LbhaError, OSError):
        return 0
