"""One more apiserver and one more etcd member than a lab has: on the node's own address, at other ports.

They carry the lab's mark, so `lab down` ends them whatever happens here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lbha.errors import LabError
from lbha.lab import lab
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import APISERVER_PORT, ETCD_PORT, environment, units

APISERVER = APISERVER_PORT + 1
ETCD = ETCD_PORT + 100
_ETCD_PEER = ETCD + 1
_SYNC_TIMEOUT = 30.0


@contextmanager
def apiserver(spec: LabSpec, node: LabNode) -> Iterator[str]:
    """A second apiserver on that node; its endpoint."""
    flag = {"--port", "--secure-port"}
    argv = list(_argv(spec, node, "apiserver"))
    for index, word in enumerate(argv):
        if word in flag:  # the stand-in
            argv[index + 1] = str(APISERVER)
        elif word.partition("=")[0] in flag:
            argv[index] = f"--secure-port={APISERVER}"
    with _running(spec, argv, f"{node.name}-apiserver-extra"):
        _accepts(spec, node, APISERVER)
        yield f"{node.address}:{APISERVER}"


@contextmanager
def learner(spec: LabSpec, node: LabNode, name: str) -> Iterator[str]:
    """A second member on that node, joined as a learner and in step; its id, for `promote` and `remove`."""
    peer = f"https://{node.address}:{_ETCD_PEER}"
    client = f"https://{node.address}:{ETCD}"
    added = etcdctl(spec, "member", "add", name, "--learner", f"--peer-urls={peer}")
    program, *flags = _argv(spec, node, "etcd")[4:]
    changed = dict(flag.partition("=")[::2] for flag in flags)
    data = Path(changed["--data-dir"]).with_name(f"{node.name}-{name}")
    changed |= {
        "--name": name,
        "--data-dir": str(data),
        "--listen-client-urls": client,
        "--advertise-client-urls": client,
        "--listen-peer-urls": peer,
        "--initial-advertise-peer-urls": peer,
        "--initial-cluster": f"{changed['--initial-cluster']},{name}={peer}",
        "--initial-cluster-state": "existing",
    }
    words = [f"{flag}={value}" if value else flag for flag, value in changed.items()]
    netns = _argv(spec, node, "etcd")[:4]
    with _running(spec, [*netns, program, *words], f"{node.name}-etcd-extra"):
        try:
            yield f"{added['member']['ID']:x}"
        finally:
            shutil.rmtree(data, ignore_errors=True)


def promote(spec: LabSpec, member: str) -> float:
    """Make the learner a voter, as soon as it is in step; when (monotonic s) that was asked for.

    LabError when it takes too long.
    """
    deadline = time.monotonic() + _SYNC_TIMEOUT
    asked = time.monotonic()
    while True:
        before, asked = asked, time.monotonic()
        try:
            etcdctl(spec, "member", "promote", member)
        except LabError as error:
            if "can only promote a learner" in str(error):
                return before  # The request before this one was carried out, only its answer was lost.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return asked


def remove(spec: LabSpec, member: str) -> None:
    """Take it out of the cluster. LabError."""
    etcdctl(spec, "member", "remove", member)


def etcdctl(spec: LabSpec, *words: str) -> Any:
    """Ask the lab's own members, from the client's host. LabError with etcdctl's last line when it fails."""
    endpoints = ",".join(f"https://{node.address}:{ETCD_PORT}" for node in spec.nodes)
    argv = ["etcdctl", f"--endpoints={endpoints}", f"--cacert={spec.ca}", f"--cert={spec.client_cert}"]
    argv += [f"--key={spec.client_key}", "--command-timeout=5s", "--write-out=json", *words]
    done = subprocess.run(
        lab.command_in(spec, "client", argv),
        capture_output=True, text=True, timeout=10, check=False, env=os.environ | {"ETCDCTL_API": "3"},
    )  # fmt: skip
    if done.returncode:
        raise LabError(f"etcdctl {' '.join(words)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return json.loads(done.stdout)


def _argv(spec: LabSpec, node: LabNode, name: str) -> tuple[str, ...]:
    return next(unit.argv for unit in units(spec) if (unit.node, unit.name) == (node.name, name))


@contextmanager
def _running(spec: LabSpec, argv: list[str], name: str) -> Iterator[None]:
    surroundings: Mapping[str, str] = os.environ | environment(spec)
    with (spec.log / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=surroundings, start_new_session=True
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _accepts(spec: LabSpec, node: LabNode, port: int, timeout: float = 15.0) -> None:
    """Wait until somebody listens there. LabError."""
    argv = lab.command_in(spec, node.name, ["ss", "--no-header", "-ltn", f"sport = :{port}"])
    deadline = time.monotonic() + timeout
    while not subprocess.run(argv, capture_output=True, check=False).stdout.strip():
        if time.monotonic() > deadline:
            raise LabError(f"nobody listens on {node.address}:{port} after {timeout:.0f} s")
        time.sleep(0.05)
