"""What `lbha plan --against` refuses does make two holders, and what it recommends never does. Needs root."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from lab_tools import eventually, holder, lbha, own_addresses

from lbha.lab import lab
from lbha.lab.holders import HolderWatch
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG, product

NEW_VIP = "10.77.0.101"

HANDOVER = 0.2
"""Seconds; some ms on an idle machine."""


@pytest.fixture(scope="module")
def running(lab_root: Path) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    return lab.up("plan", nodes=3, setup="lbha-agent")


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest; with its own files, healed and at rest again afterwards."""
    lab.wait_healthy(running, 60)
    before = {node: (node.directory / CONFIG).read_text() for node in running.nodes}
    yield running
    for node, text in before.items():
        lay(node, text)
        operate(node, "apply")
    lab.heal(running)
    eventually("one holder", lambda: len(lab.holders(running)) == 1)
    lab.wait_healthy(running, 60)


def lay(node: LabNode, text: str) -> None:
    """By rename, as an editor does."""
    draft = node.directory / "lbha.toml.new"
    draft.write_text(text)
    draft.rename(node.directory / CONFIG)


def documents(spec: LabSpec) -> dict[str, dict[str, Any]]:
    """Each node's lbha.toml: they differ in their paths."""
    return {node.name: tomllib.loads((node.directory / CONFIG).read_text()) for node in spec.nodes}


def lbha_on(node: LabNode, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(product(node, *words), capture_output=True, text=True, timeout=60, check=False)


def operate(node: LabNode, *words: str) -> None:
    done = lbha_on(node, *words)
    assert done.returncode == 0, f"{words} on {node.name}: {done.stderr}"


def plan(spec: LabSpec, old: dict[str, Any], new: dict[str, Any], tmp_path: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the real command; `old` is reordered so that the holder comes first."""
    first = holder(spec).name
    for name, document in (("old", old), ("new", new)):
        nodes = document["nodes"]
        ordered = {key: nodes[key] for key in sorted(nodes, key=lambda key: key != first)}
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps(document | {"nodes": ordered}))
    done = lbha("plan", "-c", str(tmp_path / "old.toml"), "--against", str(tmp_path / "new.toml"), "--json")
    return done.returncode, json.loads(done.stdout)


@contextmanager
def never_two(spec: LabSpec) -> Iterator[None]:
    """Two nodes never held the VIP, but for the instant of a drain: make before break, until the new holder's
    first advert has been obeyed."""
    with closing(HolderWatch(spec)) as watch:
        yield
        found = [(round(each.at, 3), each.names) for each in watch.samples()]
    assert len(found[-1][1]) == 1, found
    for (at, names), (until, _) in pairwise(found):
        assert len(names) <= 1 or until - at < HANDOVER, found


def carry_out(spec: LabSpec, step: dict[str, str], new: dict[str, dict[str, Any]]) -> None:
    """Do what a step says. What systemd would stop, a fault of the lab stops; what it would start again in the
    end, `lab.heal`."""
    node, do = spec.node(step["node"]), step["do"]
    if "lbha drain" in do:
        # An operator who is quicker than the agents' reports is refused, and tries again.
        eventually("a drain", lambda: lbha_on(node, "drain", "--reason", "plan").returncode == 0)
        eventually(f"the VIP leaves {node.name}", lambda: node.name not in lab.holders(spec))
    if do.endswith(("disable --now lbha-agent keepalived", "stop keepalived")):
        lab.inject(spec, "keepalived-stop", node.name)
    if "disable --now lbha-agent" in do:
        lab.inject(spec, "agent-kill", node.name)
    if "lay the new" in do:
        lay(node, tomli_w.dumps(new[node.name]))
        operate(node, "apply")
    if "lbha undrain" in do:
        operate(node, "undrain")


def test_one_node_with_another_router_id_or_vip_is_a_second_holder(spec: LabSpec, tmp_path: Path) -> None:
    old = documents(spec)
    backup = next(node for node in spec.nodes if node != holder(spec))
    text = (backup.directory / CONFIG).read_text()
    document = old[backup.name]
    other_id = document | {"cluster": document["cluster"] | {"virtual_router_id": 77}}
    other_vip = document | {"cluster": document["cluster"] | {"vip": NEW_VIP}}
    for new, what in ((other_id, "cluster.virtual_router_id"), (other_vip, "first VIP")):
        code, told = plan(spec, document, new, tmp_path)
        assert code == 1 and [refusal["what"] for refusal in told["change"]["refusals"]] == [what]
    lay(backup, tomli_w.dumps(other_id))
    eventually("two holders", lambda: len(lab.holders(spec)) == 2)
    lay(backup, text)
    eventually("one again", lambda: len(lab.holders(spec)) == 1)
    lab.wait_healthy(spec, 60)
    lay(backup, tomli_w.dumps(other_vip))
    eventually(
        "a holder of each", lambda: NEW_VIP in own_addresses(backup.netns) and len(lab.holders(spec)) == 1
    )


def test_the_safe_way_to_another_router_id(spec: LabSpec, tmp_path: Path) -> None:
    new = {
        name: document | {"cluster": document["cluster"] | {"virtual_router_id": 77}}
        for name, document in documents(spec).items()
    }
    old = documents(spec)["cp1"]
    _, told = plan(spec, old, new["cp1"], tmp_path)
    with never_two(spec):
        for step in told["steps"]:
            carry_out(spec, step, new)
        lab.heal(spec)
        lab.wait_healthy(spec, 60)
    assert all(
        "virtual_router_id 77\n" in (node.directory / "keepalived.conf").read_text() for node in spec.nodes
    )


def test_a_node_leaves_and_comes_back_in_order(spec: LabSpec, tmp_path: Path) -> None:
    three = documents(spec)
    leaver = next(node for node in spec.nodes if node != holder(spec)).name
    two = {
        name: document | {"nodes": {key: value for key, value in document["nodes"].items() if key != leaver}}
        for name, document in three.items()
    }
    with never_two(spec):
        code, told = plan(spec, three["cp1"], two["cp1"], tmp_path)
        assert code == 0 and told["steps"][0]["node"] == leaver
        for step in told["steps"]:
            carry_out(spec, step, two)
        code, told = plan(spec, two["cp1"], three["cp1"], tmp_path)
        assert code == 0 and told["steps"][-1]["node"] == leaver
        for step in told["steps"]:
            carry_out(spec, step, three)
        lab.heal(spec)
        lab.wait_healthy(spec, 60)
    assert len(lab.holders(spec)) == 1
