"""`lbha completion`: what a shell must read to complete lbha's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion for a shell. The Debian package lays it where the shells look.

    \b
    bash   lbha completion bash >/etc/bash_completion.d/lbha
    zsh    lbha completion zsh >~/.zfunc/_lbha    (a directory of fpath)
    fish   lbha completion fish >~/.config/fish/completions/lbha.fish

    Exit codes: 0 printed, 2 misuse.
    """
    from lbha.cli import group

    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(found(group, {}, "lbha", "_LBHA_COMPLETE").source())
