"""The files in run_dir by which keepalived learns of the agent's decision: no fork, by inotify, within 1 ms.

    up          1 or 0; missing, empty or garbage is FAULT (`weight 0 reverse`)
    score       is added to the base priority (`weight 1`)
    heartbeat   until when (s since boot) the track script repeats the verdict in it and need not ask haproxy

They outlive the agent: one that dies leaves them as they are, so nothing moves.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from lbha import files
from lbha.facts import Decision

HEARTBEAT = 1.0
"""Seconds between two heartbeats."""

FRESH = 3
"""Seconds for which a heartbeat counts."""

READABLE = files.Access(0o644)
UP, SCORE, BEAT, FIFO, SOCKET = "up", "score", "heartbeat", "notify.fifo", "agent.sock"


def prepare(run_dir: Path) -> None:
    """What keepalived must find when it starts, also where no agent ever ran: healthy, without any preference.

    The check of haproxy in keepalived.conf decides then alone. Raises OSError.
    """
    run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, text in ((UP, "1"), (SCORE, "0")):
        path = run_dir / name
        if not path.exists():
            files.write(path, f"{text}\n".encode(), READABLE)
    make_fifo(run_dir / FIFO)


def make_fifo(path: Path) -> None:
    """Make sure that it is there, and a FIFO."""
    with suppress(FileNotFoundError):
        if not stat.S_ISFIFO(path.lstat().st_mode):
            path.unlink()
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)


class Trackers:
    """Writes a decision, where it differs from what is there."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._beaten = 0.0

    @property
    def first_since_boot(self) -> bool:
        """No agent has run since the machine was booted: run_dir is memory."""
        return not (self._run_dir / BEAT).exists()

    def read(self) -> tuple[bool, int] | None:
        """What keepalived believes now; None where it is nothing that we wrote."""
        try:
            up, score = ((self._run_dir / name).read_text().strip() for name in (UP, SCORE))
            return bool(int(up)), int(score)
        except (OSError, ValueError):
            return None

    def write(self, decision: Decision) -> None:
        """Lay `up` and `score`. The worse news goes first. OSError when the disk does not take it."""
        wanted = {UP: f"{int(decision.up)}\n", SCORE: f"{decision.score}\n"}
        for name, text in sorted(wanted.items(), reverse=not decision.up):
            path = self._run_dir / name
            if files.read(path) != text.encode():
                _replace(path, text)

    def beat(self, up: bool, *, now: bool = False) -> None:
        """A heartbeat, when one is due or the verdict has just changed (`now`). OSError."""
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        if now or uptime - self._beaten >= HEARTBEAT:
            _replace(self._run_dir / BEAT, f"{int(uptime) + FRESH} {int(not up)}\n")
            self._beaten = uptime


def _replace(path: Path, text: str) -> None:
    """By rename, so that nobody reads half of it; not synced: memory does not outlive what would lose it."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    draft.replace(path)
