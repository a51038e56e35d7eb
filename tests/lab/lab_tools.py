"""What the tests of the lab ask of a lab and of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lbha.haproxy_socket import Socket
from lbha.haproxy_stat import servers
from lbha.lab import lab, processes
from lbha.lab.control import Report, UnitReport, ask
from lbha.lab.spec import LabNode, LabSpec, directory_of, label
from lbha.lab.units import data_directory


def lbha(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run lbha as an operator would."""
    argv = [sys.executable, "-m", "lbha", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def remains(name: str) -> list[str]:
    """Whatever there is of the lab of that name on this machine."""
    found = [str(path) for path in (directory_of(name), data_directory(name)) if path.exists()]
    found += [entry.name for entry in Path("/run/netns").glob(f"{label(name)}-*")]
    found += [f"process {pid}" for pid in processes.marked(directory_of(name))]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"{label(name)}-" in line]
    return found


def eventually(what: str, holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until `holds()` is true; fail with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def in_netns(netns: str, code: str) -> str:
    """What a bit of Python prints in that namespace."""
    argv = ["ip", "netns", "exec", netns, sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def connects(netns: str, address: str, port: int) -> bool:
    """Whether a TCP connection from that namespace opens within a second."""
    code = (
        "import socket\n"
        f"try: socket.create_connection(({address!r}, {port}), 1).close(); print('yes')\n"
        "except OSError: print('no')\n"
    )
    return in_netns(netns, code) == "yes"


def own_addresses(netns: str) -> set[str]:
    """What the kernel has on eth0 in that namespace, link-local ones aside."""
    output = subprocess.run(
        ["ip", "-n", netns, "-json", "addr", "show", "dev", "eth0"], capture_output=True, check=True
    ).stdout
    return {info["local"] for info in json.loads(output)[0]["addr_info"] if info["scope"] == "global"}


def holder(spec: LabSpec) -> LabNode:
    """The only node that holds the VIP."""
    (name,) = lab.holders(spec)
    return spec.node(name)


def other(spec: LabSpec, node: LabNode) -> LabNode:
    """Any other node."""
    return next(candidate for candidate in spec.nodes if candidate != node)


def moved_from(spec: LabSpec, node: LabNode) -> bool:
    """Whether exactly one node holds the VIP, and it is another one."""
    now = lab.holders(spec)
    return len(now) == 1 and now != (node.name,)


def unit(spec: LabSpec, node: LabNode, name: str) -> UnitReport:
    """A unit as the supervisor sees it."""
    return next(u for u in ask(spec, Report()).units if (u.node, u.name) == (node.name, name))


def endpoints(node: LabNode, service: str) -> set[str]:
    """Where the servers of a pool are, in the eyes of the node's haproxy; not those that drain."""
    table = Socket(node.directory / "admin.sock").ask("show stat -1 4 -1")
    return {str(server.endpoint) for server in servers(table, (service,), 0.0) if server.status != "DRAIN"}
