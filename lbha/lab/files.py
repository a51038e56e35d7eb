"""What each node is told: its lbha.toml, laid by `lbha apply` itself, or the files of a published recipe."""

from __future__ import annotations

import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from lbha import config
from lbha.errors import ConfigError, LabError
from lbha.lab import pki
from lbha.lab.spec import OWN_SETUPS, LabNode, LabSpec
from lbha.lab.units import APISERVER_PORT, CONFIG, ETCD_PORT, lbha_program, run_directory
from lbha.lab.wire import run
from lbha.model import Cluster, Kind


def read_overrides(path: Path | None) -> dict[str, Any]:
    """The operator's part of the lab's lbha.toml; ConfigError when it cannot be read."""
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}; -c names a TOML file with parts of a lbha.toml") from None


def document(spec: LabSpec, overrides: dict[str, Any]) -> dict[str, Any]:
    """The lbha.toml of the lab without paths: a small one, with `overrides` merged into it."""
    tls = {"ca": str(spec.ca), "cert": str(spec.client_cert), "key": str(spec.client_key)}
    base: dict[str, Any] = {
        "cluster": {"name": spec.name, "vip": spec.vip, "interface": "eth0"},
        "services": {
            "apiserver": {"kind": Kind.KUBE_APISERVER.value, "target_port": APISERVER_PORT, "tls": tls},
            "etcd": {"kind": Kind.ETCD.value, "target_port": ETCD_PORT, "tls": tls},
        },
        # A lab comes up as a cluster that has run for long; `power-off` and `heal` boot a node.
        "health": {"mode": spec.setup.removeprefix("lbha-"), "quarantine": 2.0},
    }
    for service in base["services"]:  # Called as the roles are.
        if spec.having(service) != spec.having("lb"):
            base["services"][service]["backends"] = [node.address for node in spec.having(service)]
    merged = merge(base, overrides)
    cluster = merged["cluster"]
    if isinstance(cluster, dict) and "vips" in overrides.get("cluster", {}):
        cluster.pop("vip", None)
    both = any(":" in str(vip) for vip in cluster.get("vips", ()))
    nodes: dict[str, Any] = {
        node.name: [node.address, node.address6] if both else node.address for node in spec.having("lb")
    }
    merged["nodes"] = merge(nodes, overrides.get("nodes", {}))
    return merged


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table. Neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def check(doc: dict[str, Any], spec: LabSpec, source: str) -> Cluster:
    """The cluster of that document. ConfigError for a mistake, LabError when the lab's hosts are not those."""
    cluster = config.parse(tomli_w.dumps(doc), source)
    expected = {node.name: {node.address, node.address6} for node in spec.nodes}
    for node in cluster.nodes:
        if not set(node.addresses) <= expected.get(node.name, set()):
            raise LabError(f"{source}: nodes.{node.name}: the lab makes its own nodes; remove [nodes]")
    return cluster


def lay(spec: LabSpec, doc: dict[str, Any]) -> None:
    """Write every node's files; with lbha's own setups the product itself does it."""
    if spec.setup not in OWN_SETUPS:
        from lbha.lab import baselines

        for node in spec.nodes:
            for name, (text, mode) in baselines.files(spec, node).items():
                path = node.directory / name
                path.write_text(text)
                path.chmod(mode)
        return
    for node in spec.having("lb"):
        text = tomli_w.dumps(doc | {"paths": paths(node, doc.get("paths", {})), "peers": _peers(spec, node)})
        (node.directory / CONFIG).write_text(text)
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(_apply, spec.stacked), spec.having("lb")))


def paths(node: LabNode, overrides: dict[str, Any]) -> dict[str, Any]:
    """`[paths]` of a node: everything under its own directory."""
    at = node.directory
    return {
        "lbha": lbha_program(),
        "state_dir": f"{at}/state",
        "run_dir": str(run_directory(node)),
        "haproxy_cfg": f"{at}/haproxy.cfg",
        "haproxy_socket": f"{at}/admin.sock",
        "haproxy_master_socket": f"{at}/master.sock",
        "keepalived_conf": f"{at}/keepalived.conf",
        "keepalived_pid": f"{at}/keepalived.pid",
    } | overrides


def _peers(spec: LabSpec, node: LabNode) -> dict[str, Any]:
    """`[peers]` of a node: the certificate that its other servers have."""
    return {"ca": str(spec.ca), "cert": str(pki.server_cert(node)), "key": str(pki.server_key(node))}


def _apply(stacked: bool, node: LabNode) -> None:
    command = [lbha_program(), "apply", "-c", str(node.directory / CONFIG), "--node", node.name]
    if stacked:
        # On a real node kubeadm's apiserver is there first; here it starts last, so its port is taken for it.
        taken = f"import socket as s, subprocess, sys; a = s.create_server(('0.0.0.0', {APISERVER_PORT}))"
        command = [sys.executable, "-c", f"{taken}; sys.exit(subprocess.call(sys.argv[1:]))", *command]
    run(["ip", "netns", "exec", node.netns, *command])
