"""What the agent does for a cluster: it moves the VIP when it must, and only then. Needs root."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from lab_tools import endpoints, eventually, holder, moved_from, other, unit

from lbha.agent.client import ask
from lbha.facts import Status
from lbha.lab import lab
from lbha.lab.control import UnitState
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG, run_directory
from lbha.masters import masters
from lbha.trackers import BEAT, SCORE


@pytest.fixture(scope="module")
def running(lab_root: Path) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    return lab.up("agent", nodes=3, setup="lbha-agent")


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest; healed and at rest again afterwards."""
    lab.wait_healthy(running, 60)
    yield running
    lab.heal(running)
    lab.wait_healthy(running, 60)


@pytest.fixture
def document(spec: LabSpec) -> Iterator[dict[str, Any]]:
    """The holder's lbha.toml, which is put back afterwards."""
    file = holder(spec).directory / CONFIG
    before = file.read_text()
    yield tomllib.loads(before)
    write(file, before)


def write(path: Path, text: str) -> None:
    """By rename, as an editor does."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


def log(spec: LabSpec, node: LabNode) -> str:
    return (spec.log / f"{node.name}-agent.log").read_text()


def test_a_dead_haproxy_moves_the_vip_and_a_recovered_node_does_not_take_it_back(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "haproxy-kill")
    eventually("the VIP moves", lambda: moved_from(spec, before), 3)
    lab.heal(spec)
    lab.wait_healthy(spec, 60)
    time.sleep(6)  # Longer than any fact needs to be believed.
    assert moved_from(spec, before)


def test_a_dead_haproxy_moves_the_vip_although_the_agent_is_dead_too(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "agent-kill", before.name)
    lab.inject(spec, "haproxy-kill", before.name)
    eventually("the track script finds out", lambda: moved_from(spec, before))


def test_an_edit_goes_live(spec: LabSpec, document: dict[str, Any]) -> None:
    node = holder(spec)
    fifth = "10.77.0.99:6443"
    old = endpoints(node, "apiserver")
    assert len(old) == 3
    document["services"]["apiserver"]["backends"] = [*sorted(old), fifth]
    write(node.directory / CONFIG, tomli_w.dumps(document))
    eventually("haproxy has the new server", lambda: endpoints(node, "apiserver") == old | {fifth}, 5)
    assert fifth in (node.directory / "haproxy.cfg").read_text()
    assert holder(spec) == node, "nothing moved"
    assert fifth not in endpoints(other(spec, node), "apiserver"), "each node has its own file"
    del document["services"]["apiserver"]["backends"]
    write(node.directory / CONFIG, tomli_w.dumps(document))
    # It drains for 30 s, and the agent looks for what has drained each 10 s.
    eventually("and has it no more", lambda: endpoints(node, "apiserver") == old, 60)


def test_a_bad_edit_is_refused_with_its_reason(spec: LabSpec, document: dict[str, Any]) -> None:
    node = holder(spec)
    haproxy, pid = (node.directory / "haproxy.cfg").read_text(), unit(spec, node, "agent").pid
    write(node.directory / CONFIG, tomli_w.dumps(document | {"failover": {"profile": "sometimes"}}))
    eventually("the agent says why", lambda: "sometimes" in log(spec, node), 5)
    assert (node.directory / "haproxy.cfg").read_text() == haproxy
    assert unit(spec, node, "agent").pid == pid and unit(spec, node, "agent").state is UnitState.RUNNING
    assert holder(spec) == node, "nothing moved"


def test_a_bad_edit_right_after_a_good_one_does_not_end_the_agent(
    spec: LabSpec, document: dict[str, Any]
) -> None:
    node = holder(spec)
    pid, old = unit(spec, node, "agent").pid, endpoints(node, "apiserver")
    document["services"]["apiserver"]["backends"] = [*sorted(old), "10.77.0.98:6443"]
    for pause in (0.15, 0.3, 0.45):  # One of them falls between the apply and the fresh start after it.
        write(node.directory / CONFIG, tomli_w.dumps(document))
        time.sleep(pause)
        write(node.directory / CONFIG, "nonsense")
        time.sleep(1)
        document["services"]["apiserver"]["backends"].append(f"10.77.0.{int(pause * 100)}:6443")
    assert unit(spec, node, "agent").pid == pid
    assert holder(spec) == node, "nothing moved"


def test_a_node_that_was_just_booted_does_not_take_over(spec: LabSpec) -> None:
    first = spec.nodes[0]
    move_to(spec, first)
    lab.inject(spec, "power-off", first.name)
    # Mostly the second: 4 ms of skew decide, which a busy machine may turn round.
    eventually("another takes over", lambda: set(lab.holders(spec)) - {first.name}, 5)
    taker = next(node for node in spec.nodes[1:] if node.name in lab.holders(spec))
    rest = next(node for node in spec.nodes[1:] if node != taker)
    lab.heal(spec)
    beat = run_directory(first) / BEAT
    eventually("its agent works", beat.exists)
    assert (run_directory(first) / SCORE).read_text().strip() == "0"
    lab.inject(spec, "haproxy-kill", taker.name)
    eventually("not the booted one takes over", lambda: lab.holders(spec) == (rest.name,), 2)


def test_status_shows_which_controller_manager_is_active_and_which_takes_over(spec: LabSpec) -> None:
    before = holder(spec)

    def words(node: LabNode) -> dict[str, tuple[str, ...]]:
        found = ask(run_directory(node), "GET", "/status", type=Status)
        return {each.node: each.components for each in masters(found, time.time())}

    def managers(node: LabNode) -> dict[str, str]:
        return {name: components[0] for name, components in words(node).items()}

    def settled(node: LabNode) -> bool:
        columns = list(zip(*words(node).values(), strict=True))
        return [sorted(column) for column in columns] == [["active", "standby", "standby"]] * 2

    for node in spec.nodes:
        eventually(
            f"{node.name} knows one of each active and two standing by", lambda node=node: settled(node), 40
        )
    (active,) = (name for name, word in managers(before).items() if word == "active")
    watcher = other(spec, spec.node(active))
    lab.inject(spec, "apiserver-kill", active)  # Its controller-manager and scheduler die with it.
    eventually(
        "another takes over, and the dead one is seen",
        lambda: sorted(managers(watcher).values()) == ["active", "not running", "standby"],
        40,
    )
    assert managers(watcher)[active] == "not running"
    assert holder(spec) == before, "the VIP has nothing to do with it"


def move_to(spec: LabSpec, node: LabNode) -> None:
    """Make that node the holder."""
    for each in spec.nodes:
        if each != node and lab.holders(spec) != (node.name,):
            lab.inject(spec, "haproxy-kill", each.name)
    eventually(f"{node.name} holds the VIP", lambda: lab.holders(spec) == (node.name,), 5)
    lab.heal(spec)
    lab.wait_healthy(spec, 60)
    assert lab.holders(spec) == (node.name,)
