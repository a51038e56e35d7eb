"""`lbha install`: systemd runs what lbha needs from now on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.common import config_option, load_cluster, node_option, own_program
from lbha.errors import ConfigError, LbhaError

if TYPE_CHECKING:
    from lbha.model import Cluster
    from lbha.units import Setup


@click.command()
@config_option
@node_option
@click.option(
    "--mode", type=click.Choice(["agent", "script"]), help="As [health] mode of lbha.toml, by default."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, change nothing.")
@click.option("--force", is_flag=True, help="Lay also those files anew that somebody changed.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only lay the units, below DIR: for an image. lbha.toml may be missing then.",
)
def command(
    config_file: Path, node_name: str | None, mode: str | None, dry_run: bool, force: bool, root: Path | None
) -> int:
    """Lay lbha's units, apply lbha.toml, and enable and start haproxy, keepalived and lbha.

    Again, it changes nothing but what differs. `lbha uninstall` takes it all away.

    Exit codes: 0 done, 1 refused or failed, 2 misuse.
    """
    from lbha import install

    try:
        if root is not None:
            _lay_below(root, _setup(config_file, node_name, mode, optional=True), dry_run=dry_run, force=force)
            return 0
        install.check_systemd()
        cluster = load_cluster(config_file)
        setup = _setup(config_file, node_name, mode)
        if problem := install.hidden_path(cluster, setup):
            raise ConfigError(problem)
        if dry_run:
            _plan(cluster, setup, node_name, force=force)
            return 0
        told: list[str] = []

        def tell(line: str) -> None:
            told.append(line)
            click.echo(line)

        def apply() -> None:
            if line := _apply(cluster, config_file, node_name):
                tell(line)

        install.install(cluster, setup, _templates(), apply, tell, force=force)
        if not told:
            click.echo("nothing to do: everything is installed and runs")
    except OSError as error:
        raise LbhaError(f"{error.filename}: {error.strerror}; run it as root") from None
    return 0


def _setup(config_file: Path, node: str | None, mode: str | None, *, optional: bool = False) -> Setup:
    """What the units depend on. ConfigError for a path that cannot stand in a unit."""
    from lbha.config import values
    from lbha.install import mode_of
    from lbha.model import Mode, Paths
    from lbha.units import Setup

    program, where = own_program(), str(config_file.absolute())
    if program is None:
        raise ConfigError(
            "lbha runs from a checkout, not as an installed program; pipx install lbha, or its package"
        )
    for path in (program, where):
        if not values.is_word(path, "._-+/", values.PATH_MAX):
            raise ConfigError(f"{path!r} cannot stand in a unit; use letters, digits and . _ - +")
    if optional and not config_file.exists():
        return Setup(Mode(mode or "agent"), program, where, Paths(), node)
    cluster = load_cluster(config_file)
    return Setup(mode_of(cluster, mode), program, where, cluster.paths, node)


def _templates() -> dict[str, str]:
    from lbha.render import template_root
    from lbha.units import TEMPLATES

    return {name: (template_root() / name).read_text(encoding="utf-8") for name in TEMPLATES}


def _lay_below(root: Path, setup: Setup, *, dry_run: bool, force: bool) -> None:
    from lbha import units
    from lbha.install import tell_plan
    from lbha.laying import Laying

    wanted, laying = units.files(setup, _templates()), Laying(root, setup.paths.state_dir)
    plan = laying.plan(wanted, force=force)
    if not dry_run:
        laying.lay(wanted, plan, setup.mode)
    tell_plan(plan, "would lay" if dry_run else "laid", click.echo)
    if plan.idle:
        click.echo("nothing to do: every file is in its place")


def _plan(cluster: Cluster, setup: Setup, node_name: str | None, *, force: bool) -> None:
    from lbha import apply, host, systemd, units
    from lbha.cli.apply import config_digest, lines
    from lbha.install import ENGINES, tell_plan
    from lbha.laying import Laying
    from lbha.units import UNITS

    plan = Laying(Path("/"), setup.paths.state_dir).plan(units.files(setup, _templates()), force=force)
    tell_plan(plan, "would lay", click.echo)
    digest = config_digest(Path(setup.config_file))
    report = apply.apply(cluster, host.find_node(cluster, node_name), digest, dry_run=True)
    for line in lines(report):
        click.echo(line)
    for unit in (*(f"{name}.service" for name in ENGINES), *UNITS[setup.mode]):
        todo = [] if systemd.is_enabled(unit) else ["enable"]
        todo += [] if systemd.is_active(unit) else ["start"]
        if todo:
            click.echo(f"would {' and '.join(todo)} {unit}")


def _apply(cluster: Cluster, config_file: Path, node_name: str | None) -> str | None:
    """`lbha apply`; a line when it changed something."""
    from lbha import apply, host
    from lbha.cli.apply import config_digest, lines

    report = apply.apply(cluster, host.find_node(cluster, node_name), config_digest(config_file))
    if report.result == "unchanged" and all(step.running for step in report.steps):
        return None
    return "\n".join(lines(report))
