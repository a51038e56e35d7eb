"""Before a lab starts: what it needs of the machine, what it will be, and the files that everybody needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lbha.errors import LabError
from lbha.lab.spec import RECIPE_PORTS, SETUPS, STAND_IN, LabNode, LabSpec, Roles, label, root
from lbha.lab.units import APISERVER_PORT, ENGINES, ETCD_PORT, data_directory

VIP = "10.77.0.100"
MAX_NODES = 9


def check_host(setup: str, nodes: int) -> None:
    """LabError when this machine or these wishes do not do."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces: run it as root")
    if setup not in SETUPS:
        raise LabError(f"no setup {setup!r}; there are {', '.join(SETUPS)}")
    if not 1 <= nodes <= MAX_NODES:
        raise LabError(f"{nodes} nodes; a lab has 1 to {MAX_NODES}")
    missing = [program for program in ENGINES if not shutil.which(program)]
    if missing:
        raise LabError(
            f"not installed: {', '.join(missing)}; on Debian: "
            "apt-get install haproxy keepalived etcd-server etcd-client iproute2 nftables"
        )


def find_apiserver(given: str | None) -> str:
    """The path of the real kube-apiserver, given or on PATH, else "stand-in"."""
    if given is None:
        return shutil.which("kube-apiserver") or STAND_IN
    if not os.access(given, os.X_OK) or not Path(given).is_file():
        raise LabError(f"--kube-apiserver {given}: not a program that can be run")
    return str(Path(given).absolute())


def lab(
    name: str, directory: Path, layout: Sequence[Roles], setup: str, apiserver: str, stacked: bool = False
) -> LabSpec:
    """The lab as it will be: one node for each element of `layout`."""
    nodes = tuple(_node(name, directory, i, roles) for i, roles in enumerate(layout, 1))
    apiserver_port, etcd_port = RECIPE_PORTS.get(setup, (APISERVER_PORT, ETCD_PORT))
    return LabSpec(
        name=name,
        setup=setup,
        directory=directory,
        nodes=nodes,
        vip=VIP,
        client_netns=f"{label(name)}-client",
        switch_netns=f"{label(name)}-sw",
        apiserver_port=apiserver_port,
        etcd_port=etcd_port,
        ca=directory / "ca.crt",
        client_cert=directory / "client.crt",
        client_key=directory / "client.key",
        apiserver=apiserver,
        stacked=stacked,
    )


def _node(name: str, directory: Path, i: int, roles: Roles) -> LabNode:
    """Called lb1 or etcd1 where that is all that it runs, otherwise cp1."""
    own = f"{roles[0] if roles in (('lb',), ('etcd',)) else 'cp'}{i}"
    return LabNode(own, f"10.77.0.{10 + i}", f"fd77::{10 + i}", f"{label(name)}-{own}", directory / own, roles)


def make_directories(spec: LabSpec) -> None:
    """Every directory, and the certificates in them."""
    from lbha.lab import pki

    root().mkdir(mode=0o755, parents=True, exist_ok=True)
    spec.directory.mkdir(mode=0o755)
    spec.log.mkdir()
    data_directory(spec.name).mkdir(mode=0o700)
    for node in spec.nodes:
        node.directory.mkdir(mode=0o755)
        (node.directory / "tmp").mkdir()
        (node.directory / "state").mkdir()
    pki.write(spec)
