"""`lbha init`: the first lbha.toml of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.common import DEFAULT_CONFIG, own_program
from lbha.errors import ConfigError, LbhaError

if TYPE_CHECKING:
    from lbha.draft import Draft
    from lbha.model import Cluster, Tls

_FILE = click.Path(path_type=Path, dir_okay=False)
_MAX_BYTES = 1 << 20


@click.command()
@click.option("--name", required=True, metavar="NAME", help="The cluster's name.")
@click.option(
    "--vip", "vips", multiple=True, metavar="ADDRESS", help="What clients will use; repeat for several."
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME=ADDRESS",
    help="A node that may hold the VIP, the preferred one first; cp1=10.0.0.11,fd00::11 for both families.",
)
@click.option("--from-etcd-env", type=_FILE, metavar="FILE", help="Nodes, members and TLS files of an etcd's.")
@click.option("--from-kubeconfig", type=_FILE, metavar="FILE", help="VIP, port and TLS files of a kubeconfig.")
@click.option(
    "--out", type=_FILE, metavar="FILE", default=DEFAULT_CONFIG, show_default=True, help="Where to write it."
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def command(
    name: str,
    vips: tuple[str, ...],
    nodes: tuple[str, ...],
    from_etcd_env: Path | None,
    from_kubeconfig: Path | None,
    out: Path,
    force: bool,
) -> int:
    """Write a commented lbha.toml for a new cluster; the same file then goes to every node.

    What is said on the command line goes before what is found in files. kubeadm's own TLS files are named where
    this host has them.

    Exit codes: 0 written, 1 it could not be, 2 misuse; then nothing was written.
    """
    from lbha import config, found
    from lbha import draft as drafts

    etcd = found.etcd_env(_text(from_etcd_env), str(from_etcd_env)) if from_etcd_env else None
    apiserver = None
    if from_kubeconfig:
        directory = from_kubeconfig.absolute().parent
        apiserver = found.kubeconfig(_text(from_kubeconfig), str(from_kubeconfig), directory)
    wanted = drafts.draft(name, vips, _nodes(nodes), etcd, apiserver, _kubeadm(drafts.KUBEADM))
    text = drafts.text(wanted)
    cluster = config.parse(text, f"lbha init for {out}", program=own_program())
    _write(out, text, force=force)
    _tell(out, cluster, wanted)
    return 0


def _nodes(given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        name, equals, addresses = each.partition("=")
        if not (name and equals and addresses):
            raise ConfigError(f"--node {each!r} is not NAME=ADDRESS; write such as --node cp1=10.0.0.11")
        if name in found:
            raise ConfigError(f"--node {name} stands twice; keep one")
        found[name] = tuple(addresses.split(","))
    return found


def _kubeadm(files: dict[str, Tls]) -> dict[str, Tls]:
    """Those whose every file is on this host."""
    return {
        service: tls
        for service, tls in files.items()
        if all(Path(path).is_file() for path in (tls.ca, tls.cert, tls.key) if path)
    }


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; name another file")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; name another file") from None


def _write(out: Path, text: str, *, force: bool) -> None:
    from lbha import files

    if not force and (out.exists() or out.is_symlink()):
        raise LbhaError(f"{out} is there already and was left as it is; --force overwrites it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write(out, text.encode(), files.Access(0o644))
    except OSError as error:
        raise LbhaError(f"{error.filename or out}: {error.strerror}; nothing was written") from None


def _tell(out: Path, cluster: Cluster, wanted: Draft) -> None:
    ports = " and ".join(f"{service.name} at {service.port}" for service in cluster.services)
    click.echo(f"wrote {out}: VIP {', '.join(cluster.vips)} with {ports}, nodes {', '.join(wanted.nodes)}")
    click.echo("it belongs on every node, the same everywhere; then, on each: lbha install")
