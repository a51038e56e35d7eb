"""What `lbha wiring kubeconfig` and `rbac` print, given to real kubectl; and programs that really run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lbha import config
from lbha.wiring import PIECES
from lbha.wiring.found import server
from lbha.wiring.gather import Node

URL = "https://10.0.0.100:6443"
HAS_KUBECTL = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


def kubeconfig(cluster: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {"server": "https://10.0.0.11:6443", "insecure-skip-tls-verify": True},
                }
            ],
            "contexts": [{"name": "me", "context": {"cluster": cluster, "user": "me"}}],
            "current-context": "me",
            "users": [{"name": "me", "user": {"token": "secret"}}],
        }
    )


@HAS_KUBECTL
def test_the_script_points_every_kubeconfig_at_the_vip(smallest: str, tmp_path: Path) -> None:
    """Whatever its cluster is called."""
    script = PIECES["kubeconfig"](config.parse(smallest))["kubeconfig/set-server.sh"]
    names = {"kubelet": "default-cluster", "scheduler": "kubernetes", "admin": "prod"}
    for name, cluster in names.items():
        (tmp_path / f"{name}.conf").write_text(kubeconfig(cluster))
    script = script.replace("/etc/kubernetes", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for name, cluster in names.items():
        text = (tmp_path / f"{name}.conf").read_text()
        assert server(text) == URL
        assert [each["name"] for each in yaml.safe_load(text)["clusters"]] == [cluster]
        assert yaml.safe_load(text)["users"] == [{"name": "me", "user": {"token": "secret"}}]


@HAS_KUBECTL
def test_the_patch_changes_kube_proxys_kubeconfig_alone(smallest: str, tmp_path: Path) -> None:
    before = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "data": {"config.conf": "kept", "kubeconfig.conf": kubeconfig("default")},
    }
    (tmp_path / "cm.yaml").write_text(yaml.safe_dump(before))
    patch = tmp_path / "patch.yaml"
    patch.write_text(PIECES["kubeconfig"](config.parse(smallest))["kubeconfig/kube-proxy-patch.yaml"])
    command = ["kubectl", "patch", "--local", "-f", str(tmp_path / "cm.yaml"), "--type", "merge"]
    done = subprocess.run(
        [*command, "--patch-file", str(patch), "-o", "yaml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = yaml.safe_load(done.stdout)["data"]
    assert data["config.conf"] == "kept" and server(data["kubeconfig.conf"]) == URL


def test_programs_that_run_are_found_with_their_files(tmp_path: Path) -> None:
    """By their command line and environment, and by the files that they name."""
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig("kubernetes"))
    sleep = "import time; time.sleep(60)"
    environment = os.environ | {"FLANNELD_ETCD_ENDPOINTS": "https://10.0.0.100:2379"}
    started = [
        subprocess.Popen(["kubelet", "-c", sleep, f"--kubeconfig={file}"], executable=sys.executable),
        subprocess.Popen(["/opt/bin/flanneld", "-c", sleep], executable=sys.executable, env=environment),
    ]
    try:
        time.sleep(0.3)
        found = Node(Path("/nonexistent"), processes=True).look()
    finally:
        for process in started:
            process.kill()
            process.wait()
    mine = {
        each.client: each.urls
        for each in found.contacts
        if each.source in {f"process {p.pid}" for p in started}
    }
    assert mine == {"kubelet": ("https://10.0.0.11:6443",), "flanneld": ("https://10.0.0.100:2379",)}
