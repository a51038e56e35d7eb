"""Labs from the outside: start one, find it, break it, heal it, end it. Needs root.

```python
spec = up("demo", nodes=3)
inject(spec, "haproxy-kill", "holder")
heal(spec)
down("demo")
```
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lbha.errors import LabError
from lbha.lab import design, files, processes, status, wire
from lbha.lab.control import Fault, Heal, Inject, Report, Stop, UnitState, ask
from lbha.lab.faults import impossible
from lbha.lab.spec import (
    OWN_SETUPS,
    ROLES,
    SETUPS,
    SPEC_FILE,
    LabSpec,
    Roles,
    directory_of,
    label,
    read,
    root,
    save,
)
from lbha.lab.units import APISERVER_PORT, CONFIG, ETCD_PORT, MARKER, data_directory
from lbha.model import Kind

_START_TIMEOUT = 60.0
_CONTROL_TIMEOUT = 10.0
_QUIET = {"openshift": 7.0}
"""Seconds without a change of priority until a setup is at rest: its scripts add to the priority of a healthy
node after `rise 3` × `interval 2`; until then all nodes look equally well."""

Progress = Callable[[str, float], None]
"""Told of each step of `up` when it is done, with the seconds that it took."""


def up(
    name: str,
    *,
    nodes: int = 3,
    layout: Sequence[Roles] = (),
    setup: str = SETUPS[0],
    overrides: Path | None = None,
    kube_apiserver: str | None = None,
    stacked: bool = False,
    progress: Progress = lambda step, seconds: None,
) -> LabSpec:
    """Start a lab and wait until everything in it is healthy.

    `overrides` is a TOML file merged into the lab's lbha.toml; `kube_apiserver` the path of a real one (else
    the one on PATH, else the stand-in); `stacked`: it listens on 0.0.0.0, as kubeadm's does. `layout`: what
    each node runs, in place of `nodes` that run everything; with lbha's own setups.

    LabError or ConfigError when it cannot be; nothing is left then, except when it came up and is not healthy:
    then it stays, to be looked at.
    """
    directory = directory_of(name)
    layout = layout or (ROLES,) * nodes
    design.check_host(setup, len(layout))
    if _traces(name):
        raise LabError(f"lab {name} is up already, or was not ended; `lbha lab down --name {name}` ends it")
    spec = design.lab(name, directory, layout, setup, design.find_apiserver(kube_apiserver), stacked)
    doc = files.document(spec, files.read_overrides(overrides))
    if setup in OWN_SETUPS:
        cluster = files.check(doc, spec, f"{overrides} on the lab's own lbha.toml" if overrides else "the lab")
        ports = {service.kind: service.port for service in reversed(cluster.services)}
        spec = replace(
            spec,
            vip=next((vip for vip in cluster.vips if ":" not in vip), cluster.vips[0]),
            apiserver_port=ports.get(Kind.KUBE_APISERVER, APISERVER_PORT),
            etcd_port=ports.get(Kind.ETCD, ETCD_PORT),
        )
    elif stacked:
        raise LabError(f"a recipe's haproxy leaves 6443 to the apiserver: --stacked goes with {OWN_SETUPS}")
    elif overrides:
        raise LabError(f"-c changes lbha's own setup; the setup {setup} is taken as it was published")

    @contextmanager
    def step(label: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        progress(label, time.monotonic() - began)

    try:
        with step("certificates"):
            design.make_directories(spec)
        with step("network"):
            from lbha.lab import netns

            netns.build(spec)
        with step("configuration"):
            files.lay(spec, doc)
            save(spec)
        with step("processes"):
            _start_supervisor(spec)
    except BaseException:
        down(name)
        raise
    with step("healthy"):
        wait_healthy(spec, _START_TIMEOUT)
    return spec


def _start_supervisor(spec: LabSpec) -> None:
    with (spec.log / "supervisor.log").open("ab") as log:
        # --fork: it becomes a child of process 1, so it outlives us and is no zombie of ours when it ends.
        subprocess.run(
            ["setsid", "--fork", sys.executable, "-m", "lbha.lab.supervisor", str(spec.directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {MARKER: str(spec.directory)},
            check=True,
        )
    deadline = time.monotonic() + _CONTROL_TIMEOUT
    while not spec.control.exists():
        if time.monotonic() > deadline:
            last = (spec.log / "supervisor.log").read_text().strip().splitlines()[-1:]
            raise LabError(f"the lab's supervisor did not start: {' '.join(last) or 'no output'}")
        time.sleep(0.02)
    ask(spec, Report())


def load(name: str) -> LabSpec:
    """The lab of that name. LabError when there is none."""
    path = directory_of(name) / SPEC_FILE
    if not path.exists():
        raise LabError(f"no lab {name!r} is up; start it with `lbha lab up --name {name}`")
    return read(path)


def names() -> tuple[str, ...]:
    """Every lab that is up or was not ended."""
    return tuple(sorted(path.name for path in root().iterdir() if path.is_dir())) if root().is_dir() else ()


def down(name: str) -> bool:
    """End the lab and remove all of it: processes, namespaces, files. False when there was nothing.

    It needs neither supervisor nor lab.json, so it also clears what a crash left behind.
    """
    directory, data = directory_of(name), data_directory(name)
    existed = bool(_traces(name))
    namespaces = _namespaces(name)
    if (directory / "control.sock").exists():
        try:
            ask(read(directory / SPEC_FILE), Stop(), timeout=10.0)
        except LabError:
            pass  # It died or hangs: the processes are found without it.
    ended = processes.end(namespaces, directory)
    if namespaces:
        from lbha.lab import netns

        netns.destroy(namespaces)
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists() or data.exists():
        raise LabError(f"{directory} or {data} could not be removed")
    try:
        root().rmdir()
    except OSError:
        pass  # Other labs are there, or it never was.
    return existed or ended > 0


def _namespaces(name: str) -> tuple[str, ...]:
    """The namespaces of the lab of that name that exist now."""
    pattern = re.compile(rf"{re.escape(label(name))}-((cp|lb|etcd)\d|sw|client)")
    there = wire.NETNS_DIR.iterdir() if wire.NETNS_DIR.is_dir() else ()
    return tuple(path.name for path in there if pattern.fullmatch(path.name))


def _traces(name: str) -> list[str]:
    """What there is of the lab of that name, whole or half."""
    folders = [str(path) for path in (directory_of(name), data_directory(name)) if path.exists()]
    return [*folders, *_namespaces(name)]


def inject(spec: LabSpec, kind: str, node: str | None = None) -> str:
    """Do a fault; the name of the node that it hit (several, joined by commas, where it hits several).

    `node` is a name, or "holder" or None for the node that holds the VIP now (for etcd-leader-kill: the one
    whose member leads). LabError for an unknown kind or node, or when nobody or more than one holds it.
    """
    if why := impossible(spec, kind):
        raise LabError(why)
    if kind == "etcd-leader-kill":
        if node not in (None, "holder"):
            raise LabError("etcd-leader-kill finds the leader itself; use etcd-kill --node to choose a node")
        node = status.etcd_leader(spec)
        if node is None:
            raise LabError("etcd has no leader now")
    elif node is None or node == "holder":
        present = holders(spec)
        if len(present) != 1:
            who = f"{' and '.join(present)} hold" if present else "nobody holds"
            raise LabError(f"{who} the VIP {spec.vip} now; say which node with --node")
        node = present[0]
    return ",".join(ask(spec, Inject(Fault(kind, spec.node(node).name))).hit)


def heal(spec: LabSpec) -> None:
    """Undo every fault and wait until every unit runs. LabError when one does not stay up."""
    ask(spec, Heal())


def holders(spec: LabSpec) -> tuple[str, ...]:
    """The nodes that have the VIP on eth0 now; one, unless something is wrong."""
    return tuple(node.name for node in spec.nodes if spec.vip in wire.addresses(node.netns))


def wait_healthy(spec: LabSpec, timeout: float) -> None:
    """Wait until nothing is wrong (`status.problems`) and nothing is about to change.

    LabError with what still is after `timeout` seconds, or at once when a unit has hit its start limit.
    """
    deadline = time.monotonic() + timeout
    before, since = None, time.monotonic()
    while True:
        found = status.gather(spec)
        problems, now = status.problems(found), time.monotonic()
        priorities = tuple(node.vrrp for node in found.nodes)
        if problems or priorities != before:
            before, since = priorities, now
        if not problems and now - since >= _QUIET.get(spec.setup, 0.0):
            return
        hopeless = any(unit.state is UnitState.FAILED for node in found.nodes for unit in node.units)
        if hopeless or now > deadline:
            reason = "; ".join(problems[:3]) or "priorities still change"
            raise LabError(
                f"lab {spec.name} is not healthy: {reason}; "
                f"see {spec.log}, or end it with `lbha lab down --name {spec.name}`"
            )
        time.sleep(0.1)


def command_in(spec: LabSpec, where: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` on that node or on the "client", with lbha's environment of there."""
    marker = f"{MARKER}={spec.directory}"
    if where == "client":
        return ["ip", "netns", "exec", spec.client_netns, "env", marker, *argv]
    node = spec.node(where)
    own = (f"LBHA_CONFIG={node.directory / CONFIG}", f"LBHA_NODE={node.name}")
    return ["ip", "netns", "exec", node.netns, "env", marker, *own, *argv]
