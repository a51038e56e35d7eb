"""The drill's table, its file and its verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lbha.errors import LabError
from lbha.lab import drill
from lbha.lab.drill import Run
from lbha.lab.report import table

GOOD = Run(
    fault="haproxy-kill", setup="lbha-script", run=1, node="cp1", apiserver="stand-in", gap_ms=1500.0,
    requests=400, failed=74, cut=1, last_failure_ms=1480.0, slowest_ms=12.0,
    errors={"refused": 74}, writes=160, failed_writes=30, write_gap_ms=1550.0,
    last_failed_write_ms=1500.0, acknowledged_writes=150,
    lost_writes=0, watches=10, watches_dead=10, watches_unaware=0, watch_recovery_ms=1600.0,
    streams=0, streams_dead=0, streams_unaware=0, stream_recovery_ms=0.0,
    holders=[(0.0, ["cp1"]), (1400.0, ["cp2"])], moved=True, two_holders_ms=0.0,
    recovered=True, window_s=6.0, client_lag_ms=5.0,
)  # fmt: skip


def shown(*runs: Run, width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table(runs))
    return capture.get()


def row(text: str, *words: str) -> str:
    (found,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return found


def test_the_table_shows_median_and_worst_per_fault_and_setup() -> None:
    runs = [replace(GOOD, run=n, gap_ms=gap) for n, gap in enumerate((1400.0, 1500.0, 3000.0), 1)]
    kubeadm = replace(GOOD, setup="kubeadm", gap_ms=31000.0, watch_recovery_ms=None, watches_unaware=7)
    text = shown(*runs, kubeadm)
    assert "1.50 (3.00)" in row(text, "haproxy-kill", "lbha-script")
    assert "31.00" in row(text, "haproxy-kill", "kubeadm")
    assert "7 unaware" in row(text, "haproxy-kill", "kubeadm")
    assert "apiserver: stand-in." in " ".join(text.split())


def test_the_table_fits_a_small_terminal() -> None:
    text = shown(replace(GOOD, fault="partition-one-way"), width=80)
    assert "1.50" in row(text, "partition-one-way", "lbha-script")
    assert "…" not in text


def test_the_table_counts_moves_and_shows_two_holders_only_where_there_were_any() -> None:
    stayed = replace(GOOD, run=2, moved=False)
    text = shown(GOOD, stayed)
    assert "1/2" in row(text, "haproxy-kill") and "Two holders" not in text
    text = shown(GOOD, replace(stayed, fault="partition", two_holders_ms=5500.0))
    assert "Two holders at worst for: partition lbha-script 5500 ms." in " ".join(text.split())


def test_the_table_says_when_clients_were_not_served_again() -> None:
    assert "not back" in row(shown(replace(GOOD, recovered=False)), "haproxy-kill")


def test_a_watch_that_knows_and_cannot_come_back_is_not_called_unaware() -> None:
    text = shown(replace(GOOD, watch_recovery_ms=None, watches_unaware=0))
    assert "not back" in row(text, "haproxy-kill")
    assert "unaware" not in text


def test_a_drill_passes_only_without_a_lost_write_and_with_every_recovery() -> None:
    assert drill.passed([GOOD, GOOD])
    assert not drill.passed([GOOD, replace(GOOD, lost_writes=1)])
    assert not drill.passed([replace(GOOD, recovered=False), GOOD])


def test_the_file_is_a_list_with_an_object_a_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    drill.save(path, [GOOD])
    drill.save(path, [GOOD, replace(GOOD, run=2)])
    assert [each["run"] for each in json.loads(path.read_text())] == [1, 2]
    assert json.loads(path.read_text())[0]["holders"] == [[0.0, ["cp1"]], [1400.0, ["cp2"]]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.json"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file or directory"):
        drill.save(tmp_path / "no" / "runs.json", [GOOD])


def test_an_unknown_fault_is_named_with_those_that_would_do() -> None:
    assert drill.known("haproxy-kill,power-off") == ("haproxy-kill", "power-off")
    with pytest.raises(LabError, match=r"no fault 'haproxy'; there are haproxy-kill"):
        drill.known("haproxy")


def test_busy_watches_have_a_column_where_there_were_any() -> None:
    assert "busy" not in shown(GOOD)
    text = shown(replace(GOOD, streams=200, streams_dead=200, stream_recovery_ms=1234.0))
    assert "busy" in text and "1.23" in text
    text = shown(replace(GOOD, streams=200, streams_unaware=3, stream_recovery_ms=None))
    assert "3 unaware" in text
