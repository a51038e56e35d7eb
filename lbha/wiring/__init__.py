"""What the rest of the cluster must be told, ready to paste: one module a piece. Pure.

made, absent = pieces(cluster)
made["kubeadm"]["kubeadm.yaml"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lbha.model import Cluster
from lbha.wiring import apiserver, etcd, flannel, kubeadm, kubeconfig, rbac
from lbha.wiring.targets import Absent

__all__ = ["PIECES", "Absent", "Files", "pieces"]

Files = Mapping[str, str]
"""Relative path -> text. What must be explained is in its comments."""

PIECES: Mapping[str, Callable[[Cluster], Files]] = {
    "kubeadm": kubeadm.files,
    "apiserver": apiserver.files,
    "kubeconfig": kubeconfig.files,
    "flannel": flannel.files,
    "etcd": etcd.files,
    "rbac": rbac.files,
}
"""Each raises Absent when lbha.toml does not say enough for it."""


def pieces(cluster: Cluster) -> tuple[dict[str, Files], dict[str, str]]:
    """Every piece by name, and why those are missing that are."""
    made: dict[str, Files] = {}
    absent: dict[str, str] = {}
    for name, files in PIECES.items():
        try:
            made[name] = files(cluster)
        except Absent as error:
            absent[name] = str(error)
    return made, absent
