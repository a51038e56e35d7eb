"""What a running lab is: where its nodes live, how to reach them, and with which certificate.

Written once by `lab up` as LABDIR/lab.json (LABDIR = $LBHA_LAB_ROOT/NAME, /run/lbha-lab/NAME by default), so
that every later command, the client and the drill find the lab from its name alone.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lbha.errors import LabError

SETUPS = ("lbha-agent", "lbha-script", "kubeadm", "openshift")
"""What a node can be set up with: lbha itself, or a published recipe to compare with."""

OWN_SETUPS = SETUPS[:2]
"""lbha itself, in either mode."""

RECIPE_PORTS = {"kubeadm": (8443, 12379), "openshift": (9445, 12379)}
"""Where a recipe's haproxy listens for the apiserver and for etcd, which hold 6443 and 2379 on the node."""

STAND_IN = "stand-in"
"""The value of `LabSpec.apiserver` when no real kube-apiserver runs."""

Roles = tuple[str, ...]

ROLES: Roles = ("lb", "apiserver", "etcd")
"""What a node may run: haproxy, keepalived and lbha; an apiserver; an etcd member."""

SPEC_FILE = "lab.json"

_DEFAULT_ROOT = "/run/lbha-lab"

_LONGEST = 80
"""A UNIX socket's path holds 107 bytes; haproxy binds NODE/admin.sock.PID.tmp first."""


@dataclass(frozen=True, slots=True)
class LabNode:
    """One node: a network namespace, its addresses, the directory of its files, and which ROLES it has."""

    name: str
    address: str
    address6: str
    netns: str
    directory: Path
    roles: Roles = ROLES


@dataclass(frozen=True, slots=True)
class LabSpec:
    """A lab that is up.

    `apiserver_port` and `etcd_port` are what clients dial at the VIP. etcd and the apiserver accept
    `client_cert`, and `ca` verifies both. `apiserver` is "stand-in" or a real kube-apiserver's path; `stacked`
    lets it listen on every address, as kubeadm does.
    """

    name: str
    setup: str
    directory: Path
    nodes: tuple[LabNode, ...]
    vip: str
    client_netns: str
    switch_netns: str
    apiserver_port: int
    etcd_port: int
    ca: Path
    client_cert: Path
    client_key: Path
    apiserver: str
    stacked: bool = False

    @property
    def control(self) -> Path:
        """The supervisor's UNIX control socket."""
        return self.directory / "control.sock"

    @property
    def log(self) -> Path:
        """The folder of everybody's output, one file a unit."""
        return self.directory / "log"

    def having(self, role: str) -> tuple[LabNode, ...]:
        """The nodes of that role."""
        return tuple(node for node in self.nodes if role in node.roles)

    def node(self, name: str) -> LabNode:
        """The node of that name; LabError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"lab {self.name} has no node {name!r}; it has {', '.join(n.name for n in self.nodes)}")


def directory_of(name: str) -> Path:
    """LABDIR of the lab of that name; LabError when the name would not do."""
    if not re.fullmatch(r"[a-z0-9-]{1,12}", name):
        raise LabError(f"lab name {name!r} must be 1 to 12 of a-z, 0-9 and '-'")
    directory = root() / name
    if len(str(directory)) > _LONGEST:
        raise LabError(f"{directory} is too long for the sockets in it; set LBHA_LAB_ROOT to a shorter path")
    return directory


def root() -> Path:
    """The folder of all labs."""
    return Path(os.environ.get("LBHA_LAB_ROOT", _DEFAULT_ROOT)).absolute()


def label(name: str) -> str:
    """What the lab's namespaces and data are called after: `lbha-NAME`, under another root `lbha-HASH.NAME`.

    So labs of one name under two roots do not meet either; no lab name holds a dot.
    """
    if str(root()) == _DEFAULT_ROOT:
        return f"lbha-{name}"
    return f"lbha-{hashlib.sha256(str(root()).encode()).hexdigest()[:6]}.{name}"


def save(spec: LabSpec) -> None:
    """Write LABDIR/lab.json, by rename, so that no reader sees half of it."""
    path = spec.directory / SPEC_FILE
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(spec, enc_hook=str)))
    draft.rename(path)


def read(path: Path) -> LabSpec:
    """The spec in that file; LabError when it is absent or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}; `lbha lab list` shows the labs that are up") from None
    try:
        return msgspec.json.decode(data, type=LabSpec, dec_hook=lambda kind, value: kind(value))
    except msgspec.DecodeError as error:
        raise LabError(f"{path}: {error}; end this lab with `lbha lab down`") from None
