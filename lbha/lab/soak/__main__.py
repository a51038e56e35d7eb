"""`python -m lbha.lab.soak`: the command line."""

from __future__ import annotations

import os
import sys

import click
import msgspec

from lbha.cli.drill import clean_up_on_sigterm
from lbha.errors import LabError, LbhaError
from lbha.lab import drill
from lbha.lab.soak.leaders import Leaders, leaders
from lbha.lab.soak.stampede import Stampede, own_lab, stampede
from lbha.lab.soak.stress import Stress, stress
from lbha.lab.soak.week import Week, week
from lbha.lab.spec import SETUPS


@click.command()
@click.option(
    "--only", type=click.Choice(["stress", "leaders", "stampede", "week"]), help="One part; all when not given."
)
@click.option("--minutes", metavar="M", type=float, default=30.0, show_default=True, help="Of stress.")
@click.option(
    "--faults", metavar="N", type=click.IntRange(1), default=300, show_default=True, help="In the week."
)
@click.option(
    "--crashes", metavar="N", type=click.IntRange(1), default=50, show_default=True, help="Of leaders."
)
@click.option(
    "--clients", metavar="N", type=click.IntRange(1), default=5000, show_default=True, help="Of stampede."
)
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(10),
    default=200,
    show_default=True,
    help="Of stampede, a second.",
)
@click.option("--seed", metavar="S", type=int, default=1, show_default=True, help="Of the week.")
@click.option("--setup", type=click.Choice(SETUPS[:2]), default=SETUPS[0], show_default=True)
def command(
    only: str | None, minutes: float, faults: int, crashes: int, clients: int, rate: int, seed: int, setup: str
) -> int:
    """Long tests of lbha. Results are JSON on stdout; exit code 0 when all are good, else 1."""
    if os.geteuid() != 0:
        raise LabError("the soak makes network namespaces: run it as root")
    clean_up_on_sigterm()
    good = True
    if only in (None, "stress"):
        with drill.own_lab(setup, 3) as spec:
            stressed = stress(spec, minutes)
        _print(stressed)
        good = stressed.moves == 0
    if only in (None, "leaders"):
        with drill.own_lab(setup, 3) as spec:
            led = leaders(spec, crashes, lambda what: click.echo(f"  {what}", err=True))
        _print(led)
        good = good and (led.failed, led.unconnected, led.lost_writes, led.moves) == (0, 0, 0, 0)
    if only in (None, "stampede"):
        with own_lab(setup, rate) as spec:
            ran = stampede(spec, clients, rate, lambda what: click.echo(f"  {what}", err=True))
        _print(*ran)
        good = good and all(each.told == clients and each.back_s is not None for each in ran)
    if only in (None, "week"):
        with drill.own_lab(setup, 3) as spec:
            lived = week(spec, faults, seed, lambda what: click.echo(f"  {what}", err=True))
        _print(lived)
        good = good and not lived.wrong and lived.lost_writes == 0
    return 0 if good else 1


def _print(*results: Stress | Leaders | Stampede | Week) -> None:
    for result in results:
        named = {type(result).__name__.lower(): result}
        click.echo(msgspec.json.format(msgspec.json.encode(named)).decode())


if __name__ == "__main__":
    try:
        sys.exit(command(prog_name="soak", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LbhaError as error:
        click.echo(f"soak: {error}", err=True)
        sys.exit(error.exit_code)
