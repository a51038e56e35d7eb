"""`lbha plan`: what to expect of lbha.toml, from the file alone."""

from __future__ import annotations

from pathlib import Path

import click

from lbha.cli.common import config_option, console, load_cluster
from lbha.model import Mode


@click.command()
@config_option
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="One mode; both when not given.")
@click.option(
    "--drill",
    "drill_file",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="What `lbha drill --json FILE` measured, beside what is computed.",
)
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="In which order the nodes go to this new lbha.toml, and what must not be done node by node.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    config_file: Path, mode: str | None, drill_file: Path | None, against: Path | None, as_json: bool
) -> int:
    """How long each fault may take, whether the right node is always elected, how to change the file.

    \b
    lbha plan                       bounds and proof, in both modes
    lbha plan --drill runs.json     a drill's figures beside the bounds
    lbha plan --against new.toml    from lbha.toml to new.toml, node by node

    Exit codes: 0 all is well; 1 a drill measured more than was computed, the wrong node may be elected, or the
    change would make two holders; 2 misuse.
    """
    if against and (mode or drill_file):
        raise click.UsageError("--against goes without --mode and --drill")
    cluster = load_cluster(config_file)
    if against:
        from lbha.forecast.change import compare
        from lbha.forecast.order import order

        new = load_cluster(against)
        change = compare(cluster, new)
        steps = order(cluster, new, change)
        if as_json:
            _json({"change": change, "steps": steps})
        else:
            from lbha.forecast import show

            console().print(show.change(change, steps))
        return 1 if change.refusals else 0

    from lbha.forecast.bounds import bounds
    from lbha.forecast.measured import beside, load
    from lbha.forecast.proof import prove
    from lbha.forecast.waits import observed

    runs = load(drill_file) if drill_file else ()
    modes = [Mode(mode)] if mode else [*Mode]
    computed = {each: bounds(cluster, each) for each in modes}
    measured = {each: [beside(bound, runs) for bound in computed[each]] for each in modes}
    proofs = [proof for each in modes for proof in prove(cluster, each)]
    if as_json:
        faults = [
            {"bound": bound, "measured": found}
            for each in modes
            for bound, found in zip(computed[each], measured[each], strict=True)
        ]
        _json({"faults": faults, "proofs": proofs})
    else:
        from rich.text import Text

        from lbha.forecast import show

        output, service = console(), observed(cluster).name
        for each in modes:
            output.print(show.bounds(computed[each], measured[each], service, bool(drill_file)), Text())
        output.print(show.proof(proofs))
    above = any(found and found.above for each in modes for found in measured[each])
    return 1 if above or any(proof.wrong for proof in proofs) else 0


def _json(value: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value)))
