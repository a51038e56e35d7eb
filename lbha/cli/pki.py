"""`lbha pki`: the certificates by which agents know one another."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.common import complete_nodes, config_option, load_cluster


@click.group()
def command() -> None:
    """The certificates by which agents know one another."""


@command.command()
@config_option
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Where to."
)
@click.option(
    "--days",
    default=730,
    show_default=True,
    type=click.IntRange(1, 3650),
    help="Life of a new node certificate; the CA's is ten years.",
)
@click.option(
    "--renew",
    multiple=True,
    metavar="NODE",
    shell_complete=complete_nodes,
    help="Mint this node's key and certificate anew.",
)
def init(config_file: Path, out: Path, days: int, renew: tuple[str, ...]) -> None:
    """Mint a CA and a certificate for every node of lbha.toml into DIR.

    Again, it keeps what is there and mints what is missing. An existing PKI does as well: name its files in
    [peers] of lbha.toml.
    """
    from lbha import pki

    cluster = load_cluster(config_file)
    for made in pki.init(cluster, out, days, renew):
        click.echo(f"{'new ' if made.new else 'kept'}  {made.path}{f'  ({made.note})' if made.note else ''}")
    peers = cluster.peers
    click.echo(
        f"\nNow copy to every NODE: {out}/NODE/ca.crt as {peers.ca}, node.crt as {peers.cert}, "
        f"and node.key as {peers.key} (mode 0600).\nKeep {out}/ca.key to yourself: no node needs it."
    )
