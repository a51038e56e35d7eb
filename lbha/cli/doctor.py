"""`lbha doctor`: what will hurt later and can be seen now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbha.cli.common import config_option, console, load_cluster, node_option

if TYPE_CHECKING:
    from lbha.doctor.model import Check, Outcome


@click.command()
@config_option
@node_option
@click.option("--only", "only", metavar="NAME", multiple=True, help="This check alone. May be repeated.")
@click.option("--list", "list_", is_flag=True, help="Every check and what it looks at; nothing is looked at.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--keepalived",
    "keepalived_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Judge this keepalived.conf, whoever wrote it, instead of this node. Once for each node's.",
)
@click.option(
    "--haproxy",
    "haproxy_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Judge this haproxy.cfg, whoever wrote it, instead of this node.",
)
def command(
    config_file: Path,
    node_name: str | None,
    only: tuple[str, ...],
    list_: bool,
    as_json: bool,
    keepalived_files: tuple[Path, ...],
    haproxy_files: tuple[Path, ...],
) -> int:
    """Look for every known trap on this node: what was seen, and what cures it. Changes nothing.

    \b
    lbha doctor                                   this node, as root, in some 3 s
    lbha doctor --only clocks --only firewall     two of its checks
    lbha doctor --keepalived cp1.conf --keepalived cp2.conf --haproxy haproxy.cfg
                                                  files that lbha did not write

    Exit codes, by the worst: 5 fatal (lbha cannot work, or two hosts will have the VIP), 4 error (a failover
    will not work), 3 warning, 1 none of these, but some check could not be made, 0 all is well but for hints;
    2 misuse, or a mistake in lbha.toml.
    """
    outcomes: list[Outcome]
    if keepalived_files or haproxy_files:
        from lbha.doctor.recipe import RECIPE_CHECKS, read

        recipe_checks = _chosen(RECIPE_CHECKS, only)
        if list_:
            return _list(recipe_checks)
        from lbha.doctor.examine import examine

        outcomes = examine(recipe_checks, read(keepalived_files, haproxy_files))
    else:
        from lbha.doctor.registry import CHECKS

        checks = _chosen(CHECKS, only)
        if list_:
            return _list(checks)
        from lbha.doctor.context import Context
        from lbha.doctor.examine import examine

        outcomes = examine(checks, Context(load_cluster(config_file), config_file, node_name))
    from lbha.doctor.model import exit_code

    _tell(outcomes, as_json)
    return exit_code(outcomes)


def _chosen(checks: Sequence[Check[Any]], only: Sequence[str]) -> list[Check[Any]]:
    names = [check.name for check in checks]
    for name in only:
        if name not in names:
            raise click.BadParameter(f"there is no check {name!r}; see lbha doctor --list", param_hint="--only")
    return [check for check in checks if not only or check.name in only]


def _list(checks: Sequence[Check[Any]]) -> int:
    from lbha.doctor.show import listed

    click.echo(listed(checks))
    return 0


def _tell(outcomes: Sequence[Outcome], as_json: bool) -> None:
    from lbha.doctor import show

    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(show.programs(outcomes))))
        return
    console().print(show.people(outcomes))
