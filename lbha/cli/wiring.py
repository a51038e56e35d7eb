"""`lbha wiring`: what the rest of the cluster must be told, and whether it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.common import config_option, load_cluster
from lbha.errors import ConfigError, LbhaError

if TYPE_CHECKING:
    from lbha.model import Cluster
    from lbha.wiring import Files


@click.command()
@config_option
@click.argument("piece", required=False)
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Write the files into DIR.")
@click.option("--force", is_flag=True, help="With --out: replace files that say something else.")
@click.option("--check", is_flag=True, help="Compare with what is set and runs on this node.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --check: the files of a node below DIR, without processes.",
)
@click.option("--node", "node_name", metavar="NAME", help="With --root: whose files these are.")
def command(
    config_file: Path,
    piece: str | None,
    out: Path | None,
    force: bool,
    check: bool,
    root: Path | None,
    node_name: str | None,
) -> int:
    """What kubeadm, kube-apiserver, kubeconfigs, flannel and etcd must be told, ready to paste.

    PIECE is one of kubeadm, apiserver, kubeconfig, flannel, etcd, rbac; all of them without it.

    \b
    lbha wiring                          everything, to read
    lbha wiring etcd --out build         etcd's files, into build/
    lbha wiring --check                  who goes through the VIP on this node, and who past it

    Exit codes: 0 done, or nothing goes past the VIP; 1 refused, or something goes past it, or a certificate
    lacks it, or a file cannot be read; 2 misuse.
    """
    if check and (out or force or piece):
        raise click.UsageError("--check goes without PIECE, --out and --force")
    if not check and (root or node_name):
        raise click.UsageError("--root and --node go with --check")
    if force and out is None:
        raise click.UsageError("--force goes with --out DIR")
    if node_name and root is None:
        raise click.UsageError("--node goes with --root DIR: this node knows its own addresses")
    cluster = load_cluster(config_file)
    if check:
        return _check(cluster, root, node_name)
    files = _files(cluster, piece)
    if out is not None:
        _write(out, files, force)
    else:
        click.echo("\n".join(f"# ---- {name} ----\n{text}" for name, text in files.items()), nl=False)
    return 0


def _files(cluster: Cluster, piece: str | None) -> Files:
    from lbha.wiring import PIECES, pieces

    if piece is not None:
        if piece not in PIECES:
            raise ConfigError(f"there is no piece {piece!r}; choose one of: {', '.join(PIECES)}")
        return PIECES[piece](cluster)
    made, absent = pieces(cluster)
    for name, why in absent.items():
        click.echo(f"lbha: no {name}: {why}", err=True)
    return {name: text for files in made.values() for name, text in files.items()}


def _write(out: Path, wanted: Files, force: bool) -> None:
    """All or, where one of them says something else already, none."""
    from lbha import files
    from lbha.files import Access

    try:
        old = {name: files.read(out / name) for name in wanted}
        other = [str(out / name) for name, text in wanted.items() if old[name] not in (None, text.encode())]
        if other and not force:
            raise LbhaError(f"{', '.join(other)}: says something else; move it away, or use --force")
        for name, text in wanted.items():
            if old[name] == text.encode():
                click.echo(f"kept  {out / name}")
                continue
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            files.write(out / name, text.encode(), Access(0o644))
            click.echo(f"new   {out / name}")
    except OSError as error:
        raise LbhaError(f"{error.filename or out}: {error.strerror}; choose another --out DIR") from None


def _check(cluster: Cluster, root: Path | None, node_name: str | None) -> int:
    from lbha import host
    from lbha.wiring.gather import Node, resolve
    from lbha.wiring.verdict import Here, judge

    if root is None:
        own = frozenset(host.own_addresses())
    else:
        own = frozenset(host.find_node(cluster, node_name).addresses if node_name else ())
    found = Node(root or Path("/"), processes=root is None).look()
    findings = judge(cluster, found, Here(own - set(cluster.vips), resolve))
    width = max(len(each.client) for each in findings)
    for each in findings:
        sources = f"  ({', '.join(each.sources)})" if each.sources else ""
        click.echo(f"{each.way:7} {each.client:{width}}  {each.text}{sources}")
    return 1 if any(each.wrong for each in findings) else 0
