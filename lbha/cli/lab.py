"""`lbha lab`: start a cluster on this machine, look at it, break it, heal it, end it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lbha.errors import LabError
from lbha.lab.spec import SETUPS

_F = TypeVar("_F", bound=Callable[..., Any])
_REST = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _name_option(function: _F) -> _F:
    return click.option(
        "--name",
        metavar="NAME",
        envvar="LBHA_LAB",
        default="default",
        show_default=True,
        help="Which lab (1 to 12 of a-z, 0-9, '-'; or LBHA_LAB).",
    )(function)


@click.group()
def command() -> None:
    """A cluster of real nodes on this machine, in network namespaces. Needs root."""
    if os.geteuid() != 0 and not {"-h", "--help"} & set(sys.argv):
        raise LabError("the lab lives in network namespaces: run it as root")


@command.command()
@_name_option
@click.option("--nodes", metavar="N", type=click.IntRange(1, 9), default=3, show_default=True, help="How many.")
@click.option(
    "-c",
    "--config",
    "overrides",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="TOML merged into the lab's lbha.toml.",
)
@click.option(
    "--kube-apiserver", metavar="PATH", help="A real kube-apiserver (else one on PATH, else a stand-in)."
)
@click.option(
    "--setup", type=click.Choice(SETUPS), default=SETUPS[0], show_default=True, help="Who keeps the VIP."
)
@click.option("--stacked", is_flag=True, help="The apiserver listens on 0.0.0.0:6443, as kubeadm's does.")
def up(
    name: str, nodes: int, overrides: Path | None, kube_apiserver: str | None, setup: str, stacked: bool
) -> None:
    """Start a lab and wait until it is healthy."""
    from lbha.lab import lab

    def progress(step: str, seconds: float) -> None:
        click.echo(f"  {step:<14} {seconds:5.1f} s")

    click.echo(f"lab {name}: {nodes} nodes, {setup}")
    spec = lab.up(
        name,
        nodes=nodes,
        setup=setup,
        overrides=overrides,
        kube_apiserver=kube_apiserver,
        stacked=stacked,
        progress=progress,
    )
    click.echo(
        f"up: VIP {spec.vip}, apiserver :{spec.apiserver_port} ({spec.apiserver}), etcd :{spec.etcd_port}"
    )


@command.command()
@_name_option
@click.option("--all", "everything", is_flag=True, help="Every lab.")
def down(name: str, everything: bool) -> None:
    """End a lab and leave nothing: no process, namespace or file, also after a crash."""
    from lbha.lab import lab

    for each in lab.names() if everything else (name,):
        click.echo(f"lab {each} is gone" if lab.down(each) else f"lab {each} was not up")


@command.command("list")
def list_() -> None:
    """The labs that are up."""
    from lbha.lab import lab

    for name in lab.names():
        click.echo(name)


@command.command()
@_name_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(name: str, as_json: bool) -> None:
    """Who holds the VIP, how everybody sees everybody, and which faults are active."""
    from lbha.lab import lab
    from lbha.lab import status as state

    found = state.gather(lab.load(name))
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    from lbha.lab import show

    show.status(found)


@command.command()
@_name_option
@click.argument("kind")
@click.option("--node", metavar="NAME", help="Which node; the holder of the VIP when not given.")
def fault(name: str, kind: str, node: str | None) -> None:
    """Break something. KIND "list" shows what can be broken."""
    from lbha.lab import lab
    from lbha.lab.faults import KINDS

    if kind == "list":
        for known, meaning in KINDS.items():
            click.echo(f"{known:<18} {meaning}")
        return
    hit = lab.inject(lab.load(name), kind, node)
    click.echo(f"{kind} on {hit}; `lbha lab heal` undoes it")


@command.command()
@_name_option
def heal(name: str) -> None:
    """Undo every fault and wait until everything runs."""
    from lbha.lab import lab

    lab.heal(lab.load(name))
    click.echo("healed: every unit runs")


@command.command("exec", context_settings=_REST)
@_name_option
@click.argument("node")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND…")
def exec_(name: str, node: str, argv: tuple[str, ...]) -> None:
    """Run a command on a node, or on the "client"."""
    from lbha.lab import lab

    _become(lab.command_in(lab.load(name), node, _after_dashes(argv)))


@command.command(context_settings=_REST | {"help_option_names": []})
@_name_option
@click.argument("arguments", nargs=-1)
def client(name: str, arguments: tuple[str, ...]) -> None:
    """Work through the VIP as a client would; see `lbha lab client -- --help`."""
    from lbha.lab import lab
    from lbha.lab.spec import SPEC_FILE

    spec = lab.load(name)
    program = [sys.executable, "-m", "lbha.lab.client", "--lab", str(spec.directory / SPEC_FILE)]
    _become(lab.command_in(spec, "client", [*program, *_after_dashes(arguments)]))


def _after_dashes(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without the `--` that ends our own options: click leaves it in after an argument."""
    return words[1:] if words[:1] == ("--",) else words


def _become(argv: list[str]) -> None:
    sys.stdout.flush()
    os.execvp(argv[0], argv)
