"""What runs on each node, as command lines. Pure: paths and addresses in, argv out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lbha
from lbha.lab import pki
from lbha.lab.spec import STAND_IN, LabNode, LabSpec, label

MARKER = "LBHA_LAB_DIRECTORY"
"""Every process of a lab carries LABDIR in this environment variable, so that `lab down` finds it whatever
died before."""

ENGINES = ("etcd", "etcdctl", "haproxy", "ip", "keepalived", "nft", "ss")
"""Programs that a lab needs."""

CONFIG = "lbha.toml"
"""A node's cluster file, in its directory."""

APISERVER_PORT = 6443
ETCD_PORT = 2379
_ETCD_PEER_PORT = 2380


@dataclass(frozen=True, slots=True)
class Unit:
    """One supervised service of a node, as a systemd unit would be."""

    node: str
    name: str
    argv: tuple[str, ...]


def units(spec: LabSpec) -> tuple[Unit, ...]:
    """Every unit of the lab, in the order in which they start."""
    made = []
    for node in spec.nodes:
        if "etcd" in node.roles:
            made.append(Unit(node.name, "etcd", _in_netns(node, _etcd(spec, node))))
        if "lb" in node.roles:
            made.append(Unit(node.name, "haproxy", _in_netns(node, _haproxy(node))))
            made.append(Unit(node.name, "keepalived", _keepalived(node)))
        if "apiserver" in node.roles:
            made.append(Unit(node.name, "apiserver", _in_netns(node, _apiserver(spec, node))))
        if "lb" in node.roles and spec.setup == "lbha-agent":
            made.append(Unit(node.name, "agent", _agent(node)))
    return tuple(made)


def busy_loop(node: LabNode) -> tuple[str, ...]:
    """A process of the node that only burns CPU."""
    return _in_netns(node, ["sh", "-c", "while :; do :; done"])


def environment(spec: LabSpec) -> dict[str, str]:
    """What every process of the lab carries."""
    return {MARKER: str(spec.directory)}


def data_directory(name: str) -> Path:
    """Where the etcd members of the lab of that name keep their data: memory when there is some, because a
    slow fsync of a shared disk would make etcd lose leaders that no fault took."""
    memory = Path("/dev/shm")
    return (memory if memory.is_dir() else Path("/var/tmp")) / label(name)


def error_file(node: LabNode) -> Path:
    """While this file exists, the stand-in apiserver answers 500 to everything."""
    return node.directory / "apiserver-error"


def run_directory(node: LabNode) -> Path:
    """The node's [paths] run_dir: /run of a real machine, so a power cut empties it."""
    return node.directory / "run"


def product(node: LabNode, *words: str) -> tuple[str, ...]:
    """An operator's `lbha WORDS` on the node."""
    own = (f"LBHA_CONFIG={node.directory / CONFIG}", f"LBHA_NODE={node.name}")
    return _in_netns(node, ["env", *own, lbha_program(), *words])


def lbha_program() -> str:
    """The lbha that belongs to this Python."""
    return str(Path(sys.executable).parent / "lbha")


def _in_netns(node: LabNode, argv: Sequence[str]) -> tuple[str, ...]:
    return ("ip", "netns", "exec", node.netns, *argv)


def _etcd(spec: LabSpec, node: LabNode) -> list[str]:
    def peer(of: LabNode) -> str:
        return f"https://{of.address}:{_ETCD_PEER_PORT}"

    client = f"https://{node.address}:{ETCD_PORT}"
    cert, key, ca = str(pki.server_cert(node)), str(pki.server_key(node)), str(spec.ca)
    return [
        "etcd",
        f"--name={node.name}",
        f"--data-dir={data_directory(spec.name) / node.name}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer(node)}",
        f"--initial-advertise-peer-urls={peer(node)}",
        f"--initial-cluster={','.join(f'{n.name}={peer(n)}' for n in spec.having('etcd'))}",
        f"--initial-cluster-token={spec.name}",
        "--initial-cluster-state=new",
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={ca}",
        "--client-cert-auth",
        f"--peer-cert-file={cert}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={ca}",
        "--peer-client-cert-auth",
        "--snapshot-count=5000",
        "--logger=zap",
        "--log-level=warn",
    ]


def _haproxy(node: LabNode) -> list[str]:
    at = node.directory
    return [
        "haproxy",
        "-W",
        *("-S", f"{at}/master.sock,mode,600"),
        *("-f", f"{at}/haproxy.cfg"),
        *("-p", f"{at}/haproxy.pid"),
    ]


def _keepalived(node: LabNode) -> tuple[str, ...]:
    """keepalived writes its state to fixed names in /tmp: each node needs a /tmp of its own."""
    at = node.directory
    keepalived = [
        "keepalived",
        *("--dont-fork", "--log-console", "--log-detail", "--no-syslog"),
        *("-f", f"{at}/keepalived.conf"),
        *("-p", f"{at}/keepalived.pid"),
        *("-r", f"{at}/vrrp.pid"),
        *("-c", f"{at}/checkers.pid"),
    ]
    return _in_netns(node, ["sh", "-ec", private_tmp(at), "sh", *keepalived])


def _agent(node: LabNode) -> tuple[str, ...]:
    # keepalived's /tmp is read through /proc/PID/root, so the agent needs none of its own.
    return _in_netns(node, [lbha_program(), "agent", "-c", str(node.directory / CONFIG), "--node", node.name])


def private_tmp(at: Path) -> str:
    """Shell text that puts AT/tmp in the place of /tmp, in the mount namespace that `ip netns exec` made.

    What the track scripts need stays visible when it lies in /tmp itself, as a fresh clone may.
    """
    lines = []
    needed = (Path(lbha_program()), Path(lbha.__file__), Path(sys.base_prefix), at)
    for top in sorted({path.parts[2] for path in needed if path.is_relative_to("/tmp")}):
        inside, outside = shlex.quote(f"{at}/tmp/{top}"), shlex.quote(f"/tmp/{top}")
        lines.append(f"mkdir -p {inside}; mount --bind {outside} {inside}")
    lines.append(f'mount --rbind {shlex.quote(f"{at}/tmp")} /tmp; exec "$@"')
    return "; ".join(lines)


def _etcd_servers(spec: LabSpec, node: LabNode) -> str:
    """The apiserver's `--etcd-servers`: the VIP behind lbha, else as published.

    kubeadm's stacked apiserver asks the member on its own node, OpenShift's knows every member.
    """
    if spec.setup == "kubeadm":
        return f"https://{node.address}:{ETCD_PORT}"
    if spec.setup == "openshift":
        return ",".join(f"https://{member.address}:{ETCD_PORT}" for member in spec.nodes)
    return f"https://{spec.vip}:{spec.etcd_port}"


def _apiserver(spec: LabSpec, node: LabNode) -> list[str]:
    cert, key, ca = str(pki.server_cert(node)), str(pki.server_key(node)), str(spec.ca)
    etcd = _etcd_servers(spec, node)
    address = "0.0.0.0" if spec.stacked else node.address
    if spec.apiserver == STAND_IN:
        return [
            *(sys.executable, "-m", "lbha.lab.apiserver"),
            *("--address", address, "--port", str(APISERVER_PORT), "--host", node.name),
            *("--cert", cert, "--key", key, "--ca", ca),
            *("--etcd", etcd, "--etcd-cert", str(spec.client_cert), "--etcd-key", str(spec.client_key)),
            *("--error-file", str(error_file(node))),
        ]
    return [
        spec.apiserver,
        f"--bind-address={address}",
        f"--advertise-address={node.address}",
        f"--secure-port={APISERVER_PORT}",
        f"--tls-cert-file={cert}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={ca}",
        f"--etcd-servers={etcd}",
        f"--etcd-cafile={ca}",
        f"--etcd-certfile={spec.client_cert}",
        f"--etcd-keyfile={spec.client_key}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://lbha.lab",
        # Tokens must be valid on every node, so all sign with one key of the lab.
        f"--service-account-key-file={spec.client_key}",
        f"--service-account-signing-key-file={spec.client_key}",
    ]
