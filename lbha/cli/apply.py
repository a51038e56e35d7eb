"""`lbha apply`: what the systemd timer runs. One line for each thing it did."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbha.cli.common import config_option, load_cluster, node_option, since
from lbha.errors import ConfigError, LbhaError

if TYPE_CHECKING:
    from lbha.apply import PoolChange, Report
    from lbha.transaction import Step


@click.command()
@config_option
@node_option
@click.option("--dry-run", is_flag=True, help="Show the difference, validate it, change nothing.")
@click.option("--force", is_flag=True, help="Although it was rolled back from, or the doctor finds it fatal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(config_file: Path, node_name: str | None, dry_run: bool, force: bool, as_json: bool) -> int:
    """Discover, render, validate, lay and reload: a transaction.

    Exit codes: 0 applied, unchanged or held, 1 refused or rolled back (nothing changed), 2 misuse.
    """
    try:
        from lbha import apply, host

        cluster = load_cluster(config_file)
        node = host.find_node(cluster, node_name)
        report = apply.apply(cluster, node, config_digest(config_file), force=force, dry_run=dry_run)
    except LbhaError as error:
        return failed(error, as_json)
    tell(report, as_json)
    return 0


def config_digest(config_file: Path) -> str:
    """The sha256 of lbha.toml: whether it is the one that was rolled back from."""
    try:
        return hashlib.sha256(config_file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{config_file}: {error.strerror}") from None


def tell(report: Report, as_json: bool) -> None:
    """Print what was done, as lines or as one JSON object."""
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(report))
        return
    if report.diff:
        click.echo(report.diff, nl=False)
    for line in lines(report):
        click.echo(line)


def lines(report: Report) -> list[str]:
    """A line for each pool that changed or could not be asked for, each engine, and a hold."""
    told = [line for change in report.pools for line in _pool_lines(change)]
    told += [_engine_line(step, planned=report.result == "planned") for step in report.steps]
    told += [str(redirect) for redirect in report.redirects]
    if report.held:
        told.append(f"held: {report.held}")
    return told


def _pool_lines(change: PoolChange) -> list[str]:
    told = []
    if change.before is None:
        told.append(f"{change.service}: {len(change.now)} backend{'' if len(change.now) == 1 else 's'}")
    elif change.before != change.now:
        moves = [f"+ {each}" for each in change.now if each not in change.before]
        moves += [f"- {each}" for each in change.before if each not in change.now]
        counts = f"{len(change.before)} -> {len(change.now)} backends"
        told.append(f"{change.service}: {counts}, {', '.join(moves)}")
    if change.error:
        told.append(f"{change.service}: {change.error}; {since(change.age)}")
    return told


def _engine_line(step: Step, *, planned: bool) -> str:
    if step.action == "unchanged":
        return f"{step.engine}: unchanged" + ("" if step.running else "; it is not running")
    if step.action == "laid":
        will = "would read" if planned else "will read"
        return f"{step.engine} is not running: it {will} {step.path} when it starts"
    adjusted = step.action == "adjusted"
    if planned:
        return f"{step.engine}: would {'adjust its servers, no reload' if adjusted else 'reload'}"
    took = f" in {step.ms:.0f} ms" if step.ms is not None else ""
    how = ", no reload" if adjusted else ""
    return f"{step.engine}: {step.action}{took}{how}, runs {step.digest or step.path}"


def failed(error: LbhaError, as_json: bool) -> int:
    """One line on stderr, or one JSON object on stdout; the exit code."""
    if not as_json:
        raise error
    import msgspec

    from lbha.transaction import RolledBackError

    result = "rolled back" if isinstance(error, RolledBackError) else "refused"
    click.echo(msgspec.json.encode({"result": result, "error": str(error)}))
    return error.exit_code
