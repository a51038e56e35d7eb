"""What keepalived's track script costs, beside what recipes run and what any process costs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from lbha.errors import LabError
from lbha.lab.bench.figures import Figure
from lbha.lab.bench.options import Options, lab_with
from lbha.lab.bench.timing import on_node
from lbha.lab.units import APISERVER_PORT, lbha_program, run_directory
from lbha.model import Paths
from lbha.render import track_program
from lbha.trackers import BEAT

_RUNS = 20
"""A process start varies much more than a failover: so many times `Options.runs`."""


def measure(options: Options) -> Iterator[Figure]:
    """Wall time of each, with everything warm. LabError."""
    curl = shutil.which("curl")
    if not curl:
        raise LabError("curl is not installed")
    options.tell("check: starting a lab")
    with lab_with("lbha-agent", 1) as spec:
        node = spec.nodes[0]
        socket = str(node.directory / "admin.sock")
        track = [track_program(Paths(lbha=lbha_program())), str(run_directory(node) / BEAT)]
        url = f"https://{node.address}:{APISERVER_PORT}/healthz"
        commands = {
            "/bin/true": ["/bin/true"],
            "lbha-track, fresh heartbeat": [*track, lbha_program(), socket],
            "curl of a local TLS endpoint": [curl, "-sfk", "--max-time", "2", "-o", "/dev/null", url],
            "python3 -I -c pass": [sys.executable, "-I", "-c", "pass"],
            "lbha check haproxy": [lbha_program(), "check", "haproxy", "--socket", socket],
        }
        options.tell("check: timing")
        times = on_node(spec, node.name, commands, 1 + _RUNS * options.runs)
    # The first of each only warms the caches.
    for name, values in times.items():
        yield Figure("check", name, "ms", tuple(values[1:]))
