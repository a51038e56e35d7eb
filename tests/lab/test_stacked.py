"""Nodes whose apiserver listens on 0.0.0.0:6443, as kubeadm's does: haproxy behind a redirect. Needs root."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_tools import connects, eventually, holder, lbha, moved_from, other, remains

from lbha.lab import lab
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG

_HOLD = """
import socket, sys
s = socket.create_connection((sys.argv[1], 6443), 5)
print("connected", flush=True)
sys.stdin.readline()
s.settimeout(10)
try: s.sendall(b"anybody there?"); s.recv(1); print("answered")
except ConnectionResetError: print("reset")
except TimeoutError: print("silence")
"""


@pytest.fixture(scope="module")
def running(lab_root: Path) -> Iterator[LabSpec]:  # noqa: ARG001 (it ends the lab)
    yield lab.up("stacked", nodes=3, stacked=True)
    lab.down("stacked")
    assert remains("stacked") == []


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest; healed and at rest again afterwards."""
    lab.wait_healthy(running, 60)
    yield running
    lab.heal(running)
    lab.wait_healthy(running, 60)


def served(netns: str, vip: str) -> bool:
    """Whether an apiserver answers at the VIP in that namespace."""
    command = ["curl", "-skf", "--max-time", "2", f"https://{vip}:6443/version"]
    done = subprocess.run(["ip", "netns", "exec", netns, *command], capture_output=True, check=False)
    return b"gitVersion" in done.stdout


def rules(node: LabNode) -> str:
    """lbha's rules in the kernel of that node."""
    command = ["ip", "netns", "exec", node.netns, "nft", "list", "table", "inet", "lbha"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_everybody_reaches_the_holders_haproxy(spec: LabSpec) -> None:
    """Also from a node whose own apiserver is dead, which would be found without the redirect."""
    before = holder(spec)
    backup = other(spec, before)
    lab.inject(spec, "apiserver-kill", before.name)
    lab.inject(spec, "apiserver-kill", backup.name)
    for netns in (spec.client_netns, before.netns, backup.netns):
        for _ in range(6):
            assert served(netns, spec.vip)
        assert not connects(netns, before.address, 6443) and connects(netns, before.address, 2379)
    assert holder(spec) == before


def test_a_dead_haproxy_moves_the_vip(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "haproxy-kill")
    eventually("the VIP moves", lambda: moved_from(spec, before), 3)
    eventually("clients are served", lambda: served(spec.client_netns, spec.vip), 3)
    assert served(before.netns, spec.vip), "the node without a haproxy is served by the new holder"


def test_the_new_holder_resets_what_it_does_not_know_and_a_reboot_brings_the_rules_back(spec: LabSpec) -> None:
    before = holder(spec)
    client = subprocess.Popen(
        ["ip", "netns", "exec", spec.client_netns, sys.executable, "-c", _HOLD, spec.vip],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdout and client.stdout.readline() == "connected\n"
        lab.inject(spec, "power-off")
        eventually("the VIP moves", lambda: moved_from(spec, before), 5)
        out, _ = client.communicate("go\n", timeout=20)
        assert out == "reset\n"
    finally:
        client.kill()
        client.wait()
    lab.heal(spec)
    eventually("the rules are back", lambda: f"to {spec.vip}:16443" in rules(before), 10)


def test_listen_vip_is_refused_while_the_apiserver_has_the_port(spec: LabSpec) -> None:
    node = other(spec, holder(spec))
    file, loaded = node.directory / CONFIG, rules(node)
    text = file.read_text()
    try:
        file.write_text(text.replace("[services.apiserver]\n", '[services.apiserver]\nlisten = "vip"\n'))
        done = lbha("lab", "exec", "--name", spec.name, node.name, "--", "lbha", "apply")
        assert done.returncode == 1 and f"cannot listen on {spec.vip}:6443" in done.stderr, done.stderr
        assert rules(node) == loaded and "dnat" in loaded
    finally:
        file.write_text(text)
    assert served(node.netns, spec.vip)
