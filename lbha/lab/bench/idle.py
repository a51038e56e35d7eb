"""What an agent costs while nothing happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from lbha.errors import LabError
from lbha.lab import drill
from lbha.lab.bench.figures import Figure, share_of_a_core
from lbha.lab.bench.options import Options, lab_with
from lbha.lab.control import Report, ask
from lbha.lab.spec import LabSpec


def measure(options: Options) -> Iterator[Figure]:
    """CPU and memory of each node's agent, over `Options.idle` seconds. LabError."""
    options.tell("idle: starting a lab")
    with lab_with("lbha-agent", 3) as spec:
        drill.rest(spec)
        pids = agents(spec)
        options.tell(f"idle: {options.idle:.0f} s")
        cpu, memory, began = [ticks(pid) for pid in pids], [rss(pid) for pid in pids], time.monotonic()
        time.sleep(options.idle)
        seconds = time.monotonic() - began
        if agents(spec) != pids:
            raise LabError("an agent was restarted while it should have been idle")
        used = [ticks(pid) - before for pid, before in zip(pids, cpu, strict=True)]
        now = [rss(pid) for pid in pids]
    hertz = os.sysconf("SC_CLK_TCK")
    grown = [after - before for after, before in zip(now, memory, strict=True)]
    shares = tuple(share_of_a_core(each, seconds, hertz) for each in used)
    yield Figure("idle", "agent: CPU", "% of a core", shares)
    yield Figure("idle", "agent: RSS", "MiB", tuple(now))
    yield Figure("idle", f"agent: growth in {seconds:.0f} s", "MiB", tuple(grown))


def agents(spec: LabSpec) -> list[int]:
    """The process of each node's agent."""
    return [unit.pid for unit in ask(spec, Report()).units if unit.name == "agent" and unit.pid]


def ticks(pid: int) -> int:
    """User and system time of a process and its threads, in clock ticks (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def rss(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
