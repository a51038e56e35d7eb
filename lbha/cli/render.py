"""`lbha render`: the text of the files. Changes nothing on the node and needs no root."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from lbha.cli.common import config_option, load_cluster, node_option, since
from lbha.errors import LbhaError, RenderError
from lbha.model import Cluster, Listen, Node, Pools, Rendered
from lbha.redirect import Redirect, redirects


@click.command()
@config_option
@node_option
@click.option("--all-nodes", is_flag=True, help="Every node's files, into DIR/NODE/ (needs --out).")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Write DIR/haproxy.cfg and so on.")
@click.option("--diff", is_flag=True, help="Show what would change on this node.")
def command(config_file: Path, node_name: str | None, all_nodes: bool, out: Path | None, diff: bool) -> None:
    """Print haproxy.cfg, keepalived.conf and, where it has rules, lbha.nft as this node would get them.

    \b
    lbha render                               the files, to read
    lbha render --diff                        what `lbha apply` would change here
    lbha render -c lbha.toml --node cp2 --out build
    lbha render -c lbha.toml --all-nodes --out build
    """
    if all_nodes and (out is None or node_name):
        raise click.UsageError("--all-nodes goes with --out DIR and without --node")
    if diff and (out or all_nodes):
        raise click.UsageError("--diff compares with this node's own files: it goes without --out")
    from lbha import discovery, host

    cluster = load_cluster(config_file)
    nodes = cluster.nodes if all_nodes else (host.find_node(cluster, node_name),)
    pools = discovery.discover(cluster, Path(cluster.paths.state_dir) / "discovery", keep=False)
    for pool in pools.values():
        if pool.error:
            click.echo(f"lbha: {pool.error}; {since(pool.age)}", err=True)
    for node in nodes:
        rendered = _render(cluster, node, pools, diff)
        if out is not None:
            _write(out / node.name if all_nodes else out, rendered)
        elif diff:
            _diff(cluster, rendered)
        else:
            for name, text in rendered.files.items():
                click.echo(f"# ---- {name} ----\n{text}")


def _render(cluster: Cluster, node: Node, pools: Pools, diff: bool) -> Rendered:
    """As `lbha apply` would on that node; where the node is another host, as on a plain one."""
    from lbha import host, render
    from lbha.keepalived import Keepalived

    here = host.interface_of(cluster, node)
    interface = here or cluster.interface
    auto = [service.name for service in cluster.services if service.listen is Listen.AUTO]
    if here is None and auto:
        click.echo(
            f'lbha: {node.name} is another host: rendered as listen = "vip" where the node itself would see '
            f"({', '.join(auto)})",
            err=True,
        )
    if interface is None:
        interface = "eth0"
        click.echo(
            f"lbha: {node.name} is another host, its interface is not known here: rendered with eth0; "
            "set [cluster] interface to choose it",
            err=True,
        )
    return render.render(
        cluster,
        node,
        pools,
        interface,
        redirects=_redirects(cluster) if here else redirects(cluster),
        load_state=here is not None and (diff or _is_applied(render.state_file(cluster.paths))),
        real_time=here is None or Keepalived(cluster.paths).survives_real_time(),
    )


def _redirects(cluster: Cluster) -> tuple[Redirect, ...]:
    """As `lbha apply` would here; where only root may read what is in force, by the sockets alone."""
    from lbha import listen

    try:
        return listen.find_redirects(cluster)
    except PermissionError:
        return redirects(cluster, listen.taken_ports(cluster))


def _is_applied(state_file: str) -> bool:
    """Whether `lbha apply` has written the state file: surely, where only root may look."""
    try:
        return Path(state_file).exists()
    except PermissionError:
        return True


def _write(directory: Path, rendered: Rendered) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in rendered.files.items():
            (directory / name).write_text(text, encoding="utf-8")
            click.echo(f"{directory / name}")
    except OSError as error:
        raise RenderError(
            f"{error.filename or directory}: {error.strerror}; choose another --out DIR"
        ) from None


def _diff(cluster: Cluster, rendered: Rendered) -> None:
    from lbha import nftables

    same = True
    targets = Rendered.targets(cluster.paths)
    try:
        wanted = nftables.with_absent(
            cluster.paths, {name: text.encode() for name, text in rendered.files.items()}
        )
    except OSError as error:
        raise LbhaError(f"{error.filename}: {error.strerror}; read it as root") from None
    for name, data in wanted.items():
        path = targets[name]
        try:
            old = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            old = ""
        except OSError as error:
            raise LbhaError(f"{path}: {error.strerror}; read it as root") from None
        lines = difflib.unified_diff(
            old.splitlines(keepends=True),
            data.decode().splitlines(keepends=True),
            str(path),
            f"{path} (rendered)",
        )
        for line in lines:
            same = False
            click.echo(line, nl=not line.endswith("\n"))
    if same:
        click.echo("no change")
