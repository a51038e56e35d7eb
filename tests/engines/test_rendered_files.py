"""What lbha renders, the real engines accept: exit code 0 and not one warning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbha.config import parse
from lbha.model import Cluster, Listen, Pool
from lbha.redirect import redirects
from lbha.render import render, state_file

FAMILIES = {
    "ipv4": ('vips = ["10.0.0.100"]', '"10.0.0.{n}"'),
    "ipv6": ('vips = ["fd00::100"]', '"fd00::{n}"'),
    "dual": ('vips = ["10.0.0.100", "fd00::100", "10.0.0.101"]', '["10.0.0.{n}", "fd00::{n}"]'),
}


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A host with an eth0: `keepalived -t` looks for the interface in its own namespace."""
    name = f"lbha-render-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "addr add 10.0.0.11/24 dev eth0",
            "addr add fd00::11/64 dev eth0 nodad",
            "link set eth0 up",
            "link set peer0 up",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def cluster_of(family: str, nodes: int, tmp_path: Path, *, more: str = "") -> Cluster:
    vips, address = FAMILIES[family]
    lines = "\n".join(f"cp{n} = {address.format(n=10 + n)}" for n in range(1, nodes + 1))
    text = f"""
[cluster]
name = "prod"
{vips}
[nodes]
{lines}
[paths]
lbha = "{Path(sys.executable).parent / "lbha"}"
state_dir = "{tmp_path}"
haproxy_socket = "{tmp_path}/admin.sock"
[services.apiserver]
kind = "kube-apiserver"
[services.etcd]
kind = "etcd"
[services.registry]
kind = "tcp"
port = 5000
{more}
"""
    return parse(text)


def accepted(namespace: str, directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).write_text(text)
    haproxy = ["haproxy", "-c", "-dW", "-f", str(directory / "haproxy.cfg")]
    keepalived = ["keepalived", "-t", "-f", str(directory / "keepalived.conf")]
    nft = [["nft", "-c", "-f", str(directory / name)] for name in files if name == "lbha.nft"]
    for command in (haproxy, keepalived, *nft):
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        assert "WARNING" not in output.upper(), output


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nodes", [1, 2, 3, 9])
def test_accepted_for_every_family_and_size(
    namespace: str, tmp_path: Path, own_nodes: Callable[..., dict[str, Pool]], family: str, nodes: int
) -> None:
    cluster = cluster_of(family, nodes, tmp_path)
    rendered = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")
    accepted(namespace, tmp_path, dict(rendered.files))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("nodes", [1, 3])
def test_accepted_with_every_rule(
    namespace: str, tmp_path: Path, own_nodes: Callable[..., dict[str, Pool]], family: str, nodes: int
) -> None:
    cluster = cluster_of(family, nodes, tmp_path, more="[failover]\nvrrp_filter = true")
    found = redirects(
        replace(cluster, services=tuple(replace(each, listen=Listen.REDIRECT) for each in cluster.services))
    )
    assert len(found) == 3
    rendered = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0", redirects=found)
    assert "lbha.nft" in rendered.files
    accepted(namespace, tmp_path, dict(rendered.files))


@pytest.mark.parametrize("extra", [10, 1000])
def test_accepted_with_many_backends(
    namespace: str, tmp_path: Path, own_nodes: Callable[..., dict[str, Pool]], extra: int
) -> None:
    cluster = cluster_of("dual", 3, tmp_path)
    rendered = render(cluster, cluster.nodes[0], own_nodes(cluster, extra=extra), "eth0")
    accepted(namespace, tmp_path, dict(rendered.files))


@pytest.mark.parametrize("profile", ["balanced", "fast", "patient"])
@pytest.mark.parametrize("failback", ["true", "false"])
def test_accepted_with_every_failover_profile(
    namespace: str,
    tmp_path: Path,
    own_nodes: Callable[..., dict[str, Pool]],
    profile: str,
    failback: str,
) -> None:
    more = f'[failover]\nprofile = "{profile}"\nfailback = {failback}'
    cluster = cluster_of("ipv4", 3, tmp_path, more=more)
    rendered = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")
    accepted(namespace, tmp_path, dict(rendered.files))


def test_accepted_with_a_saved_state_and_client_certificates(
    namespace: str, tmp_path: Path, own_nodes: Callable[..., dict[str, Pool]]
) -> None:
    for name in ("ca", "etcd"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-subj", f"/CN={name}", "-days", "2", "-keyout", f"{tmp_path}/{name}.key"),
                *("-out", f"{tmp_path}/{name}.crt"),
            ],
            check=True,
            capture_output=True,
        )
    (tmp_path / "haproxy.state").write_text("1\n")
    tls = f'{{ ca = "{tmp_path}/ca.crt", cert = "{tmp_path}/etcd.crt", key = "{tmp_path}/etcd.key" }}'
    cluster = cluster_of("ipv4", 3, tmp_path)
    text = f'tls = {tls}\n[services.unused]\nkind = "tcp"\nport = 7000'
    cluster = parse(
        f"""
[cluster]
name = "prod"
vip = "10.0.0.100"
[nodes]
cp1 = "10.0.0.11"
cp2 = "10.0.0.12"
[services.etcd]
kind = "etcd"
{text}
"""
    )
    cluster = replace(cluster, paths=cluster_of("ipv4", 1, tmp_path).paths)
    assert state_file(cluster.paths) == str(tmp_path / "haproxy.state")
    rendered = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0", load_state=True)
    accepted(namespace, tmp_path, dict(rendered.files))
