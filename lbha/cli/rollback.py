"""`lbha rollback`: an earlier configuration, through the same transaction as `lbha apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.apply import config_digest, failed, tell
from lbha.cli.common import config_option, load_cluster
from lbha.errors import LbhaError

if TYPE_CHECKING:
    from lbha.history import Entry


@click.command()
@config_option
@click.argument("steps", metavar="[N]", default=1, type=click.IntRange(1))
@click.option("--list", "list_only", is_flag=True, help="What can be put back.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(config_file: Path, steps: int, list_only: bool, as_json: bool) -> int:
    """Put back the configuration that was in force N changes ago (default 1: before the present one).

    `lbha apply`, and so the timer, then leaves it alone until lbha.toml changes.
    """
    try:
        from lbha import apply

        cluster = load_cluster(config_file)
        if list_only:
            _list(apply.history(cluster), as_json)
        else:
            tell(apply.rollback(cluster, config_digest(config_file), steps), as_json)
    except LbhaError as error:
        return failed(error, as_json)
    return 0


def _list(entries: list[Entry], as_json: bool) -> None:
    rows = [(back, entry) for back, entry in enumerate(reversed(entries))]
    if as_json:
        import msgspec

        told = [
            {"n": back, "entry": entry.name, "origin": entry.manifest.origin, "created": entry.manifest.created}
            for back, entry in rows
        ]
        click.echo(msgspec.json.encode({"history": told}))
        return
    if not rows:
        click.echo("nothing was applied yet")
    for back, entry in rows:
        pools = ", ".join(f"{name} {len(pool)}" for name, pool in entry.manifest.pools.items())
        present = "  (present)" if back == 0 else ""
        click.echo(
            f"{back:2}  {entry.name}  {entry.manifest.created}  {entry.manifest.origin}"
            f"{f'  {pools}' if pools else ''}{present}"
        )
