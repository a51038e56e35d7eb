"""The bench's pure parts: figures, their table, and what the soak compares."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import partial

import pytest
from rich.console import Console

from lbha.config import parse
from lbha.errors import LabError
from lbha.lab.apiserver import ACCEPTED
from lbha.lab.bench import timing
from lbha.lab.bench.figures import Figure, number, share_of_a_core, table
from lbha.lab.bench.render import with_backends
from lbha.lab.soak.inventory import Inventory, compare
from lbha.lab.soak.stampede import accepted


def test_a_figure_has_a_middle_and_a_worst() -> None:
    one = Figure("check", "x", "ms", (3.0, 1.0, 2.0, 10.0))
    assert (one.middle, one.worst) == (2.5, 10.0)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (0.123, "0.12"), (9.876, "9.88"), (12.34, "12.3"), (-0.5, "-0.50"), (1234.5, "1234")],
)
def test_three_digits_count(value: float, told: str) -> None:
    assert number(value) == told


def test_cpu_time_as_a_share_of_a_core() -> None:
    assert share_of_a_core(30, 300.0, 100) == pytest.approx(0.1)


def test_the_table_names_a_part_once() -> None:
    console = Console(width=110)
    figures = [
        Figure("check", "a", "ms", (1.0,)),
        Figure("check", "b", "ms", (2.0, 4.0)),
        Figure("idle", "c", "MiB", (5.0,)),
    ]
    with console.capture() as capture:
        console.print(table(figures))
    text = capture.get()
    assert text.count("check") == 1 and "idle" in text
    assert "3.00" in text and "4.00" in text


def test_a_command_that_fails_is_not_timed() -> None:
    assert timing.once(["/bin/true"]) > 0
    with pytest.raises(LabError, match="/bin/false"):
        timing.once(["/bin/false"])


def test_thousands_of_backends_are_a_valid_configuration(smallest: str) -> None:
    import tomllib

    import tomli_w

    document = with_backends(tomllib.loads(smallest), 300)
    (many,) = (service for service in parse(tomli_w.dumps(document)).services if service.name == "many")
    assert len(set(many.backends)) == 300


def test_the_soak_tells_what_is_more_than_before() -> None:
    before = Inventory(Counter({("cp1", "haproxy"): 2, ("cp1", "etcd"): 1}), {("cp1", "agent"): 20})
    assert compare(before, before) == []
    after = Inventory(
        Counter({("cp1", "haproxy"): 3, ("cp1", "etcd"): 1, ("cp1", "lbha-track"): 1}), {("cp1", "agent"): 50}
    )
    worker, descriptors = compare(before, after)
    assert "2 processes haproxy before, 3 now" in worker
    assert "agent had 20 descriptors before and has 50" in descriptors


def test_the_stampede_adds_up_what_all_stand_ins_accepted() -> None:
    line = partial(ACCEPTED.format)
    seconds = (("30", "99.00"), ("21", "100.40"), ("40", "100.90"), ("25", "102.10"), ("99", "110.00"))
    logs = "\n".join([*(line(count=count, at=at) for count, at in seconds), "another line"])
    assert accepted(logs, 100.0, 105.0) == [61, 0, 25]
    assert accepted("", 100.0, 105.0) == []


@pytest.mark.parametrize("module", ["lbha.lab.bench", "lbha.lab.soak"])
def test_a_mistake_is_one_line(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--only", "tea"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "tea" in done.stderr and "Traceback" not in done.stderr
