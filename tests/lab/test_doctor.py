"""The doctor in a cluster of three: what shows only between nodes, seen and seen cured. Needs root."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from lab_tools import eventually, holder, lbha, other

from lbha.lab import lab
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG, lbha_program

_ADVERTISE = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def spec(lab_root: Path) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    return lab.up("doctor", nodes=3, setup="lbha-agent")


def examine(spec: LabSpec, node: LabNode, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """`lbha doctor` as an operator of that node runs it: its exit code, and what became of each check."""
    argv = lab.command_in(spec, node.name, [lbha_program(), "doctor", "--json", *arguments])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {each["name"]: each for each in json.loads(done.stdout)["checks"]}


def severities(spec: LabSpec, node: LabNode, name: str) -> list[str]:
    """What one check finds; it must be able to look."""
    _, made = examine(spec, node, "--only", name)
    assert made[name]["result"] in ("good", "found"), made[name]
    return [each["severity"] for each in made[name]["findings"]]


def backup(spec: LabSpec) -> LabNode:
    return other(spec, holder(spec))


@contextmanager
def rules(node: LabNode, chain: str) -> Iterator[None]:
    """nftables' rules on a node, taken away afterwards."""
    nft = ["ip", "netns", "exec", node.netns, "nft"]
    subprocess.run([*nft, "-f", "-"], input=f"table inet fw {{\n{chain}\n}}\n", text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*nft, "delete", "table", "inet", "fw"], check=True)


@contextmanager
def advertising(spec: LabSpec, node: LabNode, router: int, priority: int, vip: str) -> Iterator[None]:
    """The client sends adverts, which keepalived does not obey."""
    address = bytes(int(part) for part in vip.split("."))
    advert = struct.pack("!BBBBHH4s", 0x31, router, priority, 1, 10, 0, address)
    argv = ["ip", "netns", "exec", spec.client_netns, sys.executable, "-c", _ADVERTISE]
    with subprocess.Popen([*argv, advert.hex(), node.address, "30"]) as process:
        yield
        process.kill()


def test_a_healthy_cluster_has_no_trap(spec: LabSpec) -> None:
    """On the holder and on a backup: no more than hints, and every check is made or does not apply."""
    for node in (holder(spec), backup(spec)):
        code, made = examine(spec, node)
        found = [each for check in made.values() for each in check["findings"]]
        assert [each for each in found if each["severity"] != "hint"] == []
        assert {name: check["why"] for name, check in made.items() if check["result"] == "not checked"} == {}
        assert code == 0
        assert max(check["ms"] for check in made.values()) < 5000


def test_a_stranger_answers_for_the_vip(spec: LabSpec) -> None:
    node = backup(spec)
    client = ["ip", "-n", spec.client_netns, "addr"]
    subprocess.run([*client, "add", f"{spec.vip}/32", "dev", "eth0"], check=True)
    try:
        assert severities(spec, node, "vip-stranger") == ["fatal"]
        assert severities(spec, holder(spec), "vip-stranger") == ["fatal"]
    finally:
        subprocess.run([*client, "del", f"{spec.vip}/32", "dev", "eth0"], check=True)
    assert severities(spec, node, "vip-stranger") == []


def test_a_backup_that_does_not_hear_the_holder(spec: LabSpec) -> None:
    before = holder(spec)
    node = other(spec, before)
    assert severities(spec, node, "vrrp-heard") == []
    drop = "chain in { type filter hook input priority 0; meta l4proto 112 drop; }"
    with rules(node, drop):
        _, made = examine(spec, node, "--only", "vrrp-heard", "--only", "firewall", "--only", "vip-stranger")
        assert made["firewall"]["findings"][0]["severity"] == "error"
        # Deaf, it is a holder itself within a second, as the link says; or it has yielded, and hears nobody.
        found = {each["severity"] for name in ("vrrp-heard", "vip-stranger") for each in made[name]["findings"]}
        assert found == {"error"}
    eventually("one holder", lambda: len(lab.holders(spec)) == 1, 20)
    lab.wait_healthy(spec, 60)
    assert severities(spec, backup(spec), "vrrp-heard") == []


def test_strangers_on_the_wire(spec: LabSpec) -> None:
    node = backup(spec)
    text = (node.directory / "keepalived.conf").read_text()
    router = int(text.split("virtual_router_id ")[1].split()[0])
    assert severities(spec, node, "virtual-router-id") == []
    for number, vip, expected in (
        (router % 255 + 1, "10.77.0.222", ["hint"]),
        (router, "10.77.0.222", ["warning"]),
        (router, spec.vip, ["fatal"]),
    ):
        with advertising(spec, node, number, 1, vip):
            told = partial(severities, spec, node, "virtual-router-id")
            eventually("it is told", partial(_is, told, expected))


def _is(look: Callable[[], list[str]], expected: list[str]) -> bool:
    return look() == expected


def test_nodes_with_different_files(spec: LabSpec) -> None:
    node, else_ = spec.nodes[1], spec.nodes[2]
    file = else_.directory / CONFIG
    before = file.read_text()
    assert severities(spec, node, "same-configuration") == []
    changed = tomllib.loads(before)
    changed.setdefault("failover", {})["handover_rate"] = 500
    _write(file, tomli_w.dumps(changed))
    try:
        eventually("told", lambda: severities(spec, node, "same-configuration") == ["error"])
    finally:
        _write(file, before)
    eventually("cured", lambda: severities(spec, node, "same-configuration") == [])


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


def test_agents_that_are_not_heard(spec: LabSpec) -> None:
    node = backup(spec)
    assert severities(spec, node, "peer-channel") == []
    with rules(
        node, "chain in { type filter hook input priority 0; tcp sport 8406 drop; tcp dport 8406 drop; }"
    ):
        eventually("told", lambda: severities(spec, node, "peer-channel") == ["warning", "warning"])
        eventually("nothing is known", lambda: _result(spec, node, "same-configuration") == "not checked")
    eventually("cured", lambda: severities(spec, node, "peer-channel") == [])


def _result(spec: LabSpec, node: LabNode, name: str) -> str:
    return str(examine(spec, node, "--only", name)[1][name]["result"])


def test_a_vip_that_a_killed_keepalived_left(spec: LabSpec) -> None:
    """Its agent is stopped as well: it would take the VIP away."""
    node = holder(spec)
    assert severities(spec, node, "vip-here") == []
    lab.inject(spec, "agent-freeze", node.name)
    lab.inject(spec, "keepalived-kill", node.name)
    try:
        eventually("two have it", lambda: len(lab.holders(spec)) == 2)
        _, made = examine(spec, node, "--only", "vip-here", "--only", "vip-stranger", "--only", "agent")
        assert {name: [each["severity"] for each in check["findings"]] for name, check in made.items()} == {
            "vip-here": ["error"],
            "vip-stranger": ["error"],
            "agent": ["error"],
        }
    finally:
        lab.heal(spec)
    eventually("one holder", lambda: len(lab.holders(spec)) == 1)
    lab.wait_healthy(spec, 60)
    assert severities(spec, node, "agent") == severities(spec, node, "vip-stranger") == []


def test_people_read_it(spec: LabSpec) -> None:
    argv = lab.command_in(
        spec, spec.nodes[0].name, [lbha_program(), "doctor", "--only", "arp", "--only", "disk"]
    )
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "2 checks: 2 good"
    assert "there is no check" in lbha("doctor", "--only", "no").stderr
