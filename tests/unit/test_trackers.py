"""The files between agent and keepalived, and the script that reads the heartbeat."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from lbha.facts import Decision
from lbha.trackers import FRESH, Trackers, prepare

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "lbha-track"


def decision(up: bool, score: int) -> Decision:
    return Decision(up, score, 100, (), "because")


def test_without_an_agent_a_node_is_healthy_and_has_no_preference(tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    assert Trackers(tmp_path / "run").read() == (True, 0)
    assert stat.S_ISFIFO((tmp_path / "run/notify.fifo").stat().st_mode)


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)
    Trackers(tmp_path).write(decision(False, 7))
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    prepare(tmp_path)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    assert Trackers(tmp_path).read() == (False, 7)


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    trackers = Trackers(tmp_path)
    trackers.write(decision(True, 5))
    before = (tmp_path / "up").stat().st_ino
    trackers.write(decision(True, 6))
    assert trackers.read() == (True, 6) and (tmp_path / "up").stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["score", "up"]


@pytest.mark.parametrize("junk", ["", "healthy", "99999999999999999999x"])
def test_what_we_did_not_write_is_nothing_to_adopt(tmp_path: Path, junk: str) -> None:
    prepare(tmp_path)
    (tmp_path / "score").write_text(junk)
    assert Trackers(tmp_path).read() is None


def test_a_heartbeat_tells_that_this_is_no_boot(tmp_path: Path) -> None:
    assert Trackers(tmp_path).first_since_boot
    Trackers(tmp_path).beat(True)
    assert not Trackers(tmp_path).first_since_boot


def track(heartbeat: Path, fallback: str = "exit 7") -> int:
    """The script's verdict; `lbha` is a stand-in that shows whether it was asked, and how."""
    lbha = heartbeat.parent / "lbha"
    lbha.write_text(f'#!/bin/sh\n[ "$*" = "check haproxy --socket /run/x.sock" ] || exit 9\n{fallback}\n')
    lbha.chmod(0o755)
    argv = [SCRIPT, heartbeat, lbha, "/run/x.sock"]
    return subprocess.run(argv, check=False, stderr=subprocess.PIPE, timeout=5).returncode


def test_a_fresh_verdict_is_repeated(tmp_path: Path) -> None:
    trackers = Trackers(tmp_path)
    trackers.beat(True, now=True)
    assert track(tmp_path / "heartbeat") == 0
    trackers.beat(False, now=True)
    assert track(tmp_path / "heartbeat") == 1


@pytest.mark.parametrize("text", [None, "", "x", "0 0\n", "17\n", "9999999999999999999999 0\n", "a b\n"])
def test_a_stale_missing_or_damaged_heartbeat_asks_haproxy(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "heartbeat").write_text(text)
    assert track(tmp_path / "heartbeat") == 7


def test_a_heartbeat_ages(tmp_path: Path) -> None:
    Trackers(tmp_path).beat(True)
    until = int((tmp_path / "heartbeat").read_text().split()[0])
    assert 0 < until - time.clock_gettime(time.CLOCK_BOOTTIME) <= FRESH


@pytest.mark.skipif(not Path("/usr/bin/strace").exists(), reason="strace counts forks")
def test_a_fresh_verdict_costs_no_fork(tmp_path: Path) -> None:
    Trackers(tmp_path).beat(True)
    argv = ["strace", "-f", "-qq", "-e", "trace=clone,fork,vfork,execve,clone3", SCRIPT]
    done = subprocess.run(
        [*argv, tmp_path / "heartbeat", "x", "y"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1, done.stderr


def test_the_script_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)
