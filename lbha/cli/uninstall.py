"""`lbha uninstall`: what `lbha install` did, undone."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.common import config_option, load_cluster
from lbha.errors import ConfigError, LbhaError


@click.command()
@config_option
def command(config_file: Path) -> int:
    """Move the VIP away, stop lbha and keepalived, and remove what lbha install laid.

    haproxy.cfg and keepalived.conf become what they were before lbha. A file that somebody changed is kept and
    told. lbha.toml and lbha's state directory stay.

    Exit codes: 0 done, 1 failed, 2 misuse.
    """
    from lbha.install import check_systemd
    from lbha.model import Paths
    from lbha.uninstall import uninstall

    check_systemd()
    try:
        paths = load_cluster(config_file).paths
    except ConfigError as error:
        click.echo(f"{error}; the usual paths are taken")
        paths = Paths()
    try:
        uninstall(paths, click.echo)
    except OSError as error:
        raise LbhaError(f"{error.filename}: {error.strerror}; run it as root") from None
    return 0
