"""Programs that run in this network namespace, by their command lines."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lbha.doctor.model import NotChecked


@dataclass(frozen=True, slots=True)
class Process:
    """A running program: `name` as the kernel has it (15 characters), `argv` as it was started."""

    pid: int
    parent: int
    name: str
    argv: tuple[str, ...]


def processes(names: Collection[str], proc: Path = Path("/proc")) -> tuple[Process, ...]:
    """Those of these names (as in /proc/PID/comm) here, by pid; of other network namespaces none.

    NotChecked where only root may know."""
    here = (proc / "self/ns/net").readlink()
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text().strip()
            if name not in names or _network(entry, name) != here:
                continue
            argv = (entry / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        found.append(Process(int(entry.name), parent, name, tuple(argv)))
    return tuple(sorted(found, key=lambda process: process.pid))


def _network(process: Path, name: str) -> Path:
    try:
        return (process / "ns/net").readlink()
    except PermissionError:
        raise NotChecked(
            f"only root may know whether {name} (pid {process.name}) runs in this network"
        ) from None
