"""Events outlive what an agent does not, and never stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lbha.agent.events import KEEP, Event, Events


def texts(events: Events) -> list[str]:
    return [event.text for event in events.last(10 * KEEP)]


def test_events_come_back_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "events.jsonl"
    events = Events(path, clock=lambda: 1.5)
    assert events.add("vip-gained", "cp1 holds it", "fault") == Event(
        1.5, "vip-gained", "cp1 holds it", "fault"
    )
    events.add("applied", "Zeile\nzwei")
    again = Events(path)
    assert again.last(50) == events.last(50)
    assert again.last(1) == [Event(1.5, "applied", "Zeile\nzwei")] and again.last(0) == []
    assert again.latest("vip-gained", "vip-lost") == Event(1.5, "vip-gained", "cp1 holds it", "fault")
    assert again.latest("drain") is None
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert len(path.read_bytes().splitlines()) == 2


def test_the_file_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = Events(path)
    for number in range(2 * KEEP + 5):
        events.add("priority", str(number))
        assert number % 500 or texts(Events(path))[-1] == str(number)
    assert len(path.read_bytes().splitlines()) == KEEP + 4
    assert texts(events) == texts(Events(path)) == [str(n) for n in range(KEEP + 5, 2 * KEEP + 5)]
    assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl"]


@pytest.mark.parametrize("torn", [b'{"at":1.0,"ki', b"\x00\x00\x00", b"nonsense\n", b'{"at":1}\n', b"\xff\n"])
def test_a_torn_line_is_skipped_and_mended(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    Events(path).add("applied", "one")
    with path.open("ab") as file:
        file.write(torn)
    events = Events(path)
    assert texts(events) == ["one"]
    events.add("applied", "two")
    assert texts(Events(path)) == ["one", "two"]
    assert len(path.read_bytes().splitlines()) == 2


_WRITER = """
import sys
from pathlib import Path
from lbha.agent.events import Events
events = Events(Path(sys.argv[1]))
number = 0
while True:
    events.add("priority", str(number))
    print(number, flush=True)
    number += 1
"""


def test_what_was_told_survives_kill_9(tmp_path: Path) -> None:
    """Killed at many moments, in the middle of rotations too: every event that `add` returned for is there."""
    path = tmp_path / "events.jsonl"
    told = -1
    for run in range(5):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05 * run)
        writer.send_signal(signal.SIGKILL)
        told = int([line for line in writer.stdout.read().split("\n")[:-1] if line][-1:][0]) if run else 0
        writer.wait()
        writer.stdout.close()
        kept = [int(text) for text in texts(Events(path))]
        assert kept[-1] >= told and kept == list(range(kept[0], kept[-1] + 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_is_told_once_and_made_up_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        path = disk / "events.jsonl"
        events = Events(path)
        events.add("applied", "before")
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 512)
        for number in range(300):
            events.add("priority", f"{number} {'y' * 100}")
        assert events.problem is not None and "No space left" in events.problem
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert len(events.last(KEEP)) == 301
        filler.unlink()
        events.add("applied", "after")
        assert events.problem is None
        assert Events(path).last(KEEP) == events.last(KEEP)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_path_that_cannot_be_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    events = Events(tmp_path / "file" / "events.jsonl")
    events.add("applied", "one")
    assert texts(events) == ["one"] and events.problem is not None
