"""`lbha config`: what every key is, also those that the file does not name, and what every key may be."""

from __future__ import annotations

from pathlib import Path

import click

from lbha import config
from lbha.cli.common import config_option, load_cluster


@click.group()
def command() -> None:
    """The configuration as lbha understands it."""


@command.command()
@config_option
def show(config_file: Path) -> None:
    """Print the effective configuration as TOML: a complete lbha.toml with every default visible."""
    import tomli_w

    click.echo(tomli_w.dumps(config.effective(load_cluster(config_file))), nl=False)


@command.command()
def reference() -> None:
    """Print every key of lbha.toml as Markdown: type, default, what it may be and what it is."""
    from lbha.config.reference import page

    click.echo(page(), nl=False)
