"""This node's own clients of the apiserver: do they go through the VIP."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, Severity
from lbha.doctor.processes import processes
from lbha.model import Cluster, Kind

DIRECTORY = Path("/etc/kubernetes")
"""Where kubeadm puts the kubeconfigs."""

FILES = ("kubelet.conf", "controller-manager.conf", "scheduler.conf", "admin.conf", "super-admin.conf")
PROGRAMS = ("kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler", "flanneld")
LOCAL_ON_PURPOSE = ("controller-manager", "scheduler")

_SERVER = re.compile(r"^\s*(?:-\s*)?server:\s*[\"']?([^\s\"']+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Client:
    """Where one client's configuration sends it."""

    where: str
    server: str


def clients(context: Context) -> Iterator[Finding]:
    """The kubeconfigs of kubeadm, and those that programs here were started with."""
    paths = {DIRECTORY / name for name in FILES}
    for process in processes(PROGRAMS):
        if named := process.option("kubeconfig"):
            paths.add(Path(f"/proc/{process.pid}/root{named}") if process.pid else Path(named))
    found = [client for path in sorted(paths, key=str) for client in _read(path)]
    if not found:
        raise DoesNotApply(f"no kubeconfig in {DIRECTORY}, and no client of the apiserver runs here")
    yield from judge_clients(found, context.cluster, _addresses)


def _read(path: Path) -> list[Client]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [Client(str(path), server) for server in dict.fromkeys(_SERVER.findall(text))]


def judge_clients(
    found: list[Client], cluster: Cluster, addresses: Callable[[str], frozenset[str]]
) -> Iterator[Finding]:
    """`addresses(name)`: where a host name leads, empty when nowhere."""
    ports = {each.port for each in cluster.services if each.kind is Kind.KUBE_APISERVER}
    if not ports:
        raise DoesNotApply("no service of kind kube-apiserver")
    for client in found:
        parts = urlsplit(client.server)
        host, port = parts.hostname or "", parts.port or 443
        if port in ports and (host in cluster.vips or addresses(host) & set(cluster.vips)):
            continue
        local = any(word in Path(client.where).name for word in LOCAL_ON_PURPOSE)
        vip = f"[{cluster.vips[0]}]" if ":" in cluster.vips[0] else cluster.vips[0]
        better = f"https://{vip}:{min(ports)}"
        if local:
            yield Finding(
                "clients",
                Severity.HINT,
                f"{client.where} has server: {client.server}, past the VIP: it stops with this one apiserver. "
                "kubeadm means it so: another node's takes over by its lease",
                f"server: {better}, where it should survive its apiserver",
            )
        else:
            yield Finding(
                "clients",
                Severity.WARNING,
                f"{client.where} has server: {client.server}, past the VIP: when that apiserver dies, so does "
                "it",
                f"server: {better}, then restart it (kubeadm: controlPlaneEndpoint)",
            )


def _addresses(name: str) -> frozenset[str]:
    try:
        return frozenset(str(info[4][0]) for info in socket.getaddrinfo(name, None))
    except OSError:
        return frozenset()
