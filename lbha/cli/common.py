"""What several commands share: options, and the way from -c FILE and --node to a Cluster and a Node."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbha import config
from lbha.errors import LbhaError
from lbha.model import Cluster

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_CONFIG = "/etc/lbha/lbha.toml"

_F = TypeVar("_F", bound=Callable[..., Any])


def config_option(function: _F) -> _F:
    """-c/--config FILE, else LBHA_CONFIG, else /etc/lbha/lbha.toml."""
    return click.option(
        "-c",
        "--config",
        "config_file",
        metavar="FILE",
        envvar="LBHA_CONFIG",
        default=DEFAULT_CONFIG,
        show_default=True,
        type=click.Path(path_type=Path, readable=False),  # lbha.config says it in one line
        help="The cluster file (or LBHA_CONFIG).",
    )(function)


def node_option(function: _F) -> _F:
    """--node NAME; `lbha.host.find_node` looks at LBHA_NODE and at the host's addresses without it."""
    return click.option(
        "--node",
        "node_name",
        metavar="NAME",
        shell_complete=complete_nodes,
        help="Which node this is (or LBHA_NODE; else by its addresses).",
    )(function)


def complete_nodes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell may complete to a node's name; nothing where lbha.toml cannot be read."""
    cluster = _cluster_to_complete(context)
    return [node.name for node in cluster.nodes if node.name.startswith(incomplete)] if cluster else []


def complete_checks(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """What a shell may complete after `lbha check`."""
    cluster = _cluster_to_complete(context)
    names = (*config.RESERVED_SERVICES, *(service.name for service in (cluster.services if cluster else ())))
    return [name for name in names if name.startswith(incomplete)]


def _cluster_to_complete(context: click.Context) -> Cluster | None:
    named = context.params.get("config_file") or os.environ.get("LBHA_CONFIG") or DEFAULT_CONFIG
    try:
        return config.load(Path(named))
    except LbhaError:
        return None


def load_cluster(config_file: Path) -> Cluster:
    """The cluster file, with this very lbha as the program that keepalived runs unless the file names one."""
    return config.load(config_file, program=own_program())


def console(width: int = 120) -> Console:
    """Where tables go. A file or a pipe has no width: `width` then."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with 1, which means something here: `lbha.cli.main` knows.

    return Output(width=None if sys.stdout.isatty() else width)


def since(age: float | None) -> str:
    """What a pool is whose source failed (`Pool.age`), in words."""
    return "the cluster's nodes stand in" if age is None else f"kept from {age:.0f} s ago"


def own_program() -> str | None:
    """The path of the installed `lbha` that runs now, None when there is none.

    Its directory without symbolic links and "..", but not the file: an upgrade may switch a link there.
    """
    for candidate in (Path(sys.argv[0]), Path(sysconfig.get_path("scripts")) / "lbha"):
        if candidate.name == "lbha" and candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate.parent.resolve() / candidate.name)
    return None
