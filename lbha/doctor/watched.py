"""Whether keepalived really watches the files in which the agent tells its verdict."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.keepalived import Keepalived
from lbha.model import Mode
from lbha.trackers import FIFO, SCORE, UP

_WATCH = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+) ", re.MULTILINE)


def verdict_watched(context: Context) -> Iterator[Finding]:
    """keepalived's inotify watches, by the kernel's word (/proc/PID/fdinfo)."""
    cluster = context.cluster
    if cluster.health.mode is Mode.SCRIPT:
        raise DoesNotApply('[health] mode = "script": keepalived reads no file of an agent')
    run_dir = Path(cluster.paths.run_dir)
    if not run_dir.is_dir():
        yield Finding(
            "verdict-watched",
            Severity.ERROR,
            f"{run_dir} does not exist: keepalived takes this node for broken (FAULT)",
            "systemd-tmpfiles --create lbha.conf (templates/tmpfiles.d/lbha.conf)",
        )
        return
    missing = [name for name in (UP, SCORE, FIFO) if not (run_dir / name).exists()]
    pid = Keepalived(cluster.paths).pid()
    if pid is None:
        raise NotChecked("keepalived does not run")
    yield from judge_watches(str(run_dir), run_dir.stat().st_ino, watched(pid), missing)


def judge_watches(run_dir: str, inode: int, watches: frozenset[int], missing: list[str]) -> Iterator[Finding]:
    """`watches`: the inodes that keepalived watches; `missing`: files of the verdict that are not there."""
    for name in missing:
        yield Finding(
            "verdict-watched",
            Severity.ERROR,
            f"{run_dir}/{name} does not exist",
            "systemd-tmpfiles --create lbha.conf, or restart lbha-agent, which makes it",
        )
    if inode not in watches:
        yield Finding(
            "verdict-watched",
            Severity.ERROR,
            f"keepalived watches {run_dir} no more: the directory was replaced after it started, and what the "
            "agent decides moves nothing",
            "systemctl reload keepalived; RuntimeDirectory= of a unit replaces it, tmpfiles.d does not",
        )


def watched(pid: int) -> frozenset[int]:
    """The inodes of the directories that a process or its children watch."""
    found: set[int] = set()
    for each in (pid, *_children(pid)):
        for entry in Path(f"/proc/{each}/fdinfo").iterdir():
            try:
                found |= {int(inode, 16) for inode in _WATCH.findall(entry.read_text())}
            except FileNotFoundError:
                continue
    return frozenset(found)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
