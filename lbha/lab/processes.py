"""Finding the processes of a lab in /proc, and ending them. Zombies count as ended."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from lbha.errors import LabError
from lbha.lab.units import MARKER
from lbha.lab.wire import NETNS_DIR

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36


def everybody() -> list[int]:
    """Every process id of the machine, oldest id first."""
    return sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def in_session(leader: int) -> list[int]:
    """The processes of the session that `leader` began, itself first while it is there; zombies too.

    A unit is a session: its leader is its first process, and neither haproxy's workers nor keepalived's
    children leave it, so they are found even when the leader is dead.
    """
    found = []
    for pid in everybody():
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except ProcessLookupError:
            continue
    return sorted(found, key=lambda pid: (pid != leader, pid))


def adopt_orphans() -> None:
    """Become the parent of whatever a child of ours leaves behind, as systemd is (prctl(2)).

    keepalived takes the zombie of an earlier one for a running daemon and refuses to start; where process 1
    reaps late or never, as in many containers, only this helps.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(pids: Iterable[int]) -> None:
    """Let those of them that are dead children of ours go."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def in_namespaces(names: Iterable[str]) -> list[int]:
    """The processes whose network namespace is one of those."""
    inodes = {identity for name in names if (identity := _identity(NETNS_DIR / name))}
    return [pid for pid in everybody() if _identity(_PROC / str(pid) / "ns" / "net") in inodes]


def marked(directory: Path) -> list[int]:
    """The processes that carry LABDIR in their environment."""
    marker = f"{MARKER}={directory}".encode()
    found = []
    for pid in everybody():
        try:
            if marker in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def state(pid: int) -> str:
    """The letter of proc(5), such as R, S, T (stopped) or Z (zombie); empty when there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to each; those that are gone already are no error."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end(names: Iterable[str], directory: Path, timeout: float = 10.0) -> int:
    """SIGKILL every process of the lab but this one, until none is left; how many there were.

    LabError when some outlive `timeout` seconds.
    """
    names = tuple(names)
    ended: set[int] = set()
    deadline = time.monotonic() + timeout
    while left := {*in_namespaces(names), *marked(directory)} - {os.getpid()}:
        if time.monotonic() > deadline:
            raise LabError(f"processes {sorted(left)} of {directory} do not end, even by SIGKILL")
        kill(left)
        ended |= left
        time.sleep(0.02)
    return len(ended)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
