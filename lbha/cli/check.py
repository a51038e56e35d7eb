"""`lbha check` inside the click group, for `lbha --help`; `lbha.__main__` takes the short way past click."""

from __future__ import annotations

import click

from lbha import check
from lbha.cli.common import complete_checks


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_checks)
def command(arguments: tuple[str, ...]) -> int:
    """keepalived's track script."""
    return check.main(list(arguments))
