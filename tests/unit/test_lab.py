"""The lab's pure parts, and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from lbha import config
from lbha.errors import LabError
from lbha.lab import control, design, drill, faults, files, lab, spec, status, units, wire
from lbha.lab.control import UnitReport, UnitState
from lbha.lab.status import LabStatus, MemberStatus, NodeStatus, ServerStatus, VrrpStatus, server_rows


def made(count: int = 3, setup: str = "lbha-script", directory: Path = Path("/run/lbha-lab/x")) -> spec.LabSpec:
    return design.lab("x", directory, [spec.ROLES] * count, setup, spec.STAND_IN)


def test_a_spec_survives_its_file(tmp_path: Path) -> None:
    before = made(directory=tmp_path)
    spec.save(before)
    assert spec.read(tmp_path / spec.SPEC_FILE) == before


@pytest.mark.parametrize("text", ["", "{}", '{"name": 1}', "\0"])
def test_a_damaged_spec_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / spec.SPEC_FILE
    path.write_text(text)
    with pytest.raises(LabError, match="lab down") as caught:
        spec.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "A", "a.b", "../x", "a/b", "thirteenchars", "a b", "a\n"])
def test_a_name_that_would_not_do(name: str) -> None:
    with pytest.raises(LabError, match="1 to 12"):
        spec.directory_of(name)


@given(st.lists(st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True), min_size=2, max_size=2, unique=True))
def test_labs_of_different_names_share_no_namespace(names: list[str]) -> None:
    suffixes = ("sw", "client", "cp1", "cp9")
    one, two = ({f"{spec.label(name)}-{suffix}" for suffix in suffixes} for name in names)
    assert not one & two


def test_labs_under_another_root_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBHA_LAB_ROOT", raising=False)
    assert spec.label("a") == "lbha-a"
    monkeypatch.setenv("LBHA_LAB_ROOT", "/run/other")
    assert spec.label("a") not in ("lbha-a", "lbha-other-a") and spec.label("a").endswith(".a")


def test_a_root_too_long_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBHA_LAB_ROOT", "/run/" + "x" * 90)
    with pytest.raises(LabError, match="LBHA_LAB_ROOT"):
        spec.directory_of("a")


@pytest.mark.parametrize(
    ("lab_spec", "kind", "says"),
    [
        (made(setup="lbha-script"), "agent-kill", "needs an agent"),
        (made(setup="kubeadm"), "drain", "set up with kubeadm"),
        (made(1, "lbha-agent"), "partition", "has one"),
        (replace(made(), apiserver="/opt/kube-apiserver"), "apiserver-error", "stand-in"),
        (made(), "earthquake", "there are haproxy-kill"),
    ],
)
def test_what_a_setup_cannot_have_is_left_out_and_refused(lab_spec: spec.LabSpec, kind: str, says: str) -> None:
    assert kind not in drill.every(lab_spec)
    with pytest.raises(LabError, match=says) as caught:
        lab.inject(lab_spec, kind)
    assert "\n" not in str(caught.value)


def test_a_lab_with_agents_can_have_every_fault() -> None:
    assert drill.every(made(setup="lbha-agent")) == tuple(faults.KINDS)


@given(count=st.integers(2, 9), keep=st.integers(1, 9))
def test_quorum_loss_kills_just_enough_and_never_the_kept_one(count: int, keep: int) -> None:
    kept = f"cp{min(keep, count)}"
    victims = faults.quorum_victims(made(count), kept)
    alive, quorum = count - len(victims), count // 2 + 1
    assert kept not in victims and len(set(victims)) == len(victims)
    assert alive == quorum - 1, "one more alive would be a quorum"


def test_a_partition_drops_both_ways_and_a_one_way_loss_only_one() -> None:
    lab_spec = made()
    cp1, cp2, _ = lab_spec.nodes
    rules = wire.cut_rules(lab_spec, (cp1,), (cp2,))
    assert 'iifname "p-cp1" oifname { "p-cp2", "p-cp3" } drop' in rules
    assert 'oifname "p-cp1" iifname { "p-cp2", "p-cp3" } drop' in rules
    assert 'iifname "p-cp2" oifname { "p-cp1", "p-cp3" } ether type != arp drop' in rules
    assert 'oifname "p-cp2" iifname' not in rules and "p-client" not in rules
    assert "drop" not in wire.cut_rules(lab_spec, (), ())


def test_the_labs_own_lbha_toml_is_accepted_for_every_size() -> None:
    for count in (1, 3, 9):
        lab_spec = made(count)
        cluster = files.check(files.document(lab_spec, {}), lab_spec, "the lab")
        assert [node.name for node in cluster.nodes] == [node.name for node in lab_spec.nodes]
        assert cluster.vips == (lab_spec.vip,) and {s.name for s in cluster.services} == {"apiserver", "etcd"}


def test_a_nodes_paths_are_its_own() -> None:
    lab_spec = made()
    texts = []
    for node in lab_spec.nodes:
        doc = files.document(lab_spec, {}) | {"paths": files.paths(node, {})}
        paths = config.parse(tomli_w.dumps(doc)).paths
        moved = [getattr(paths, name) for name in type(paths).__dataclass_fields__ if name != "lbha"]
        assert all(path.startswith(f"{node.directory}/") for path in moved)
        texts += moved
    assert len(set(texts)) == len(texts)


def test_overrides_are_merged_table_by_table() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    over = {"a": {"c": {"d": 9}}, "f": 4}
    assert files.merge(base, over) == {"a": {"b": 1, "c": {"d": 9}}, "e": 3, "f": 4}
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_a_second_vip_of_another_family_gives_the_nodes_both_addresses() -> None:
    lab_spec = made()
    doc = files.document(lab_spec, {"cluster": {"vips": ["10.77.0.100", "fd77::100"]}})
    cluster = files.check(doc, lab_spec, "the lab")
    assert cluster.vips == ("10.77.0.100", "fd77::100")
    assert cluster.nodes[0].addresses == ("10.77.0.11", "fd77::11")


def test_nodes_are_the_labs_own() -> None:
    lab_spec = made()
    with pytest.raises(LabError, match=r"remove \[nodes\]"):
        files.check(files.document(lab_spec, {"nodes": {"cp1": "10.1.1.1"}}), lab_spec, "over.toml")


def test_every_node_has_every_unit_under_its_own_files() -> None:
    lab_spec = made()
    found = units.units(lab_spec)
    assert len(found) == 4 * len(lab_spec.nodes)
    for unit in found:
        node = lab_spec.node(unit.node)
        assert unit.argv[:4] == ("ip", "netns", "exec", node.netns)
        strange = [other.name for other in lab_spec.nodes if other != node]
        assert not any(f"/{name}/" in word for word in unit.argv for name in strange)


def test_a_real_apiserver_is_run_when_there_is_one() -> None:
    lab_spec = replace(made(), apiserver="/opt/kube-apiserver")
    argv = next(unit.argv for unit in units.units(lab_spec) if unit.name == "apiserver")
    assert argv[4] == "/opt/kube-apiserver" and "--secure-port=6443" in argv
    assert f"--etcd-servers=https://{lab_spec.vip}:{lab_spec.etcd_port}" in argv


def test_a_clone_in_tmp_stays_visible_to_keepalived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/tmp/clone/.venv/bin/python")
    script = next(unit.argv for unit in units.units(made()) if unit.name == "keepalived")[6]
    assert script.index("mount --bind /tmp/clone") < script.index("mount --rbind")


def test_no_supervisor_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="supervisor does not answer") as caught:
        control.ask(made(directory=tmp_path), control.Report())
    assert "\n" not in str(caught.value)


def well(name: str, *, holds: bool) -> NodeStatus:
    return NodeStatus(
        name=name,
        address="10.77.0.11",
        holds_vip=holds,
        vrrp=VrrpStatus("MASTER" if holds else "BACKUP", 100, 226 if holds else 100),
        servers=(ServerStatus("etcd", "cp1", "UP", "L7OK"),),
        member=MemberStatus(name, "3.4.23", "cp1", False),
        units=(UnitReport(name, "haproxy", UnitState.RUNNING, 1, 0),),
    )


def whole(*nodes: NodeStatus) -> LabStatus:
    holders = tuple(node.name for node in nodes if node.holds_vip)
    return LabStatus("x", "lbha-script", "10.77.0.100", spec.STAND_IN, holders, "cp1", nodes, (), None)


def test_a_lab_that_is_well_has_no_problems() -> None:
    assert status.problems(whole(well("cp1", holds=True), well("cp2", holds=False))) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vrrp": None}, "keepalived of cp2 does not answer"),
        ({"vrrp": VrrpStatus("BACKUP", 100, 58)}, "keepalived of cp2 finds it unwell"),
        ({"vrrp": VrrpStatus("BACKUP", 100, 254)}, "the VIP is about to leave cp1"),
        ({"vrrp": VrrpStatus("FAULT", 100, 100)}, "keepalived of cp2 is in FAULT"),
        ({"member": None}, "etcd of cp2 does not answer"),
        ({"holds_vip": True}, "cp1 and cp2"),
        ({"servers": None}, "haproxy of cp2 does not answer"),
        ({"servers": (ServerStatus("etcd", "cp1", "DOWN", "L4TOUT"),)}, "etcd/cp1 is DOWN for haproxy of cp2"),
        ({"units": (UnitReport("cp2", "etcd", UnitState.FAILED, None, 5),)}, "etcd of cp2 is failed"),
    ],
)
def test_whatever_is_wrong_is_said(change: dict[str, object], says: str) -> None:
    found = status.problems(whole(well("cp1", holds=True), replace(well("cp2", holds=False), **change)))
    assert any(says in problem for problem in found), found


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match=r"keepalived.*apt-get install"):
        lab.up("x")


@pytest.mark.parametrize("argv", [["lab", "up"], ["lab", "status"], ["lab", "down", "--all"]])
def test_without_root_it_is_one_line(argv: list[str]) -> None:
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "lbha", *argv]
    else:
        argv = [sys.executable, "-m", "lbha", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "root" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_slot_shows_as_the_address_that_it_carries_and_an_empty_one_not_at_all() -> None:
    answer = (
        "# pxname,svname,status,type,check_status,addr\n"
        "etcd,BACKEND,UP,1,,\n"
        "etcd,cp1,UP,2,L7OK,10.0.0.11:2379\n"
        "etcd,_slot1,UP,2,L7OK,10.0.0.14:2379\n"
        "etcd,_slot2,MAINT,2,,127.0.0.1:1\n"
    )
    assert server_rows(answer) == (
        ServerStatus("etcd", "cp1", "UP", "L7OK"),
        ServerStatus("etcd", "10.0.0.14:2379", "UP", "L7OK"),
    )


def test_a_node_runs_what_its_roles_say_and_nothing_else(tmp_path: Path) -> None:
    layout = [("lb",), ("apiserver", "etcd"), ("etcd",), ("lb", "apiserver")]
    made = design.lab("x", tmp_path, layout, "lbha-agent", spec.STAND_IN)
    assert [node.name for node in made.nodes] == ["lb1", "cp2", "etcd3", "cp4"]
    run = {
        node.name: [unit.name for unit in units.units(made) if unit.node == node.name] for node in made.nodes
    }
    assert run == {
        "lb1": ["haproxy", "keepalived", "agent"],
        "cp2": ["etcd", "apiserver"],
        "etcd3": ["etcd"],
        "cp4": ["haproxy", "keepalived", "apiserver", "agent"],
    }
    (member,) = (unit for unit in units.units(made) if (unit.node, unit.name) == ("etcd3", "etcd"))
    assert "--initial-cluster=cp2=https://10.77.0.12:2380,etcd3=https://10.77.0.13:2380" in member.argv
    doc = files.document(made, {})
    assert list(doc["nodes"]) == ["lb1", "cp4"]
    assert doc["services"]["apiserver"]["backends"] == ["10.77.0.12", "10.77.0.14"]
    assert doc["services"]["etcd"]["backends"] == ["10.77.0.12", "10.77.0.13"]
