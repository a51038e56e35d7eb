"""How long programs run from start to end. `python -m lbha.lab.bench.timing` runs on a node:
`{"commands": {NAME: [ARGV…]}, "count": N}` on stdin, `{NAME: [ms, …]}` on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from lbha.errors import LabError
from lbha.lab import lab
from lbha.lab.spec import LabSpec

_NULL = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
_TIMEOUT = 300.0


def on_node(
    spec: LabSpec, node: str, commands: Mapping[str, Sequence[str]], count: int
) -> dict[str, list[float]]:
    """Each command `count` times on that node, in turn, so that a busy moment hits all alike. In ms.

    LabError when a command fails.
    """
    argv = lab.command_in(spec, node, [sys.executable, "-m", __name__])
    asked = json.dumps({"commands": commands, "count": count})
    try:
        done = subprocess.run(argv, input=asked, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise LabError(f"timing on {node} did not end within {_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise LabError((done.stderr.strip().splitlines() or ["timing failed"])[-1])
    times: dict[str, list[float]] = json.loads(done.stdout)
    return times


def once(argv: Sequence[str]) -> float:
    """Seconds from its start until it has ended. LabError when it fails: that would time the wrong thing."""
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], list(argv), os.environ, file_actions=_NULL)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    if code := os.waitstatus_to_exitcode(status):
        raise LabError(f"`{' '.join(argv)}` ended with {code}")
    return took


def main() -> int:
    """The node's side."""
    asked = json.load(sys.stdin)
    times: dict[str, list[float]] = {name: [] for name in asked["commands"]}
    try:
        for _ in range(asked["count"]):
            for name, argv in asked["commands"].items():
                times[name].append(round(once(argv) * 1000, 3))
    except (LabError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(times, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
