"""Idle clients learn at once that the VIP has moved, whatever became of its holder. Needs root."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from lab_tools import eventually, holder, moved_from, other

from lbha.agent.client import ask
from lbha.facts import Status
from lbha.lab import lab
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG, product, run_directory

NUMBER = 120
RATE = 60

_IDLE = """
import asyncio, json, sys, time
async def watch(reader):
    try: await reader.read(1)
    except OSError: pass
    return time.time()
async def main(number, targets):
    ends = []
    for address, port in targets:
        for _ in range(number):
            reader, writer = await asyncio.open_connection(address, port)
            ends.append((address, asyncio.create_task(watch(reader)), writer))
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(json.dumps([(t, task.result() if task.done() else None) for t, task, _ in ends]), flush=True)
asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def running(lab_root: Path, tmp_path_factory: pytest.TempPathFactory) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    overrides = tmp_path_factory.mktemp("clients") / "overrides.toml"
    overrides.write_text(f"[failover]\nhandover_rate = {RATE}\n")
    return lab.up("clients", nodes=3, setup="lbha-agent", overrides=overrides)


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest; healed and at rest again afterwards."""
    lab.wait_healthy(running, 60)
    yield running
    lab.heal(running)
    lab.wait_healthy(running, 60)


class Idle:
    """Connections of the lab's client that say nothing: through the VIP, and to a node's own address."""

    def __init__(self, spec: LabSpec, direct: LabNode, number: int = NUMBER) -> None:
        self.vip, self.direct = spec.vip, direct.address
        targets = json.dumps([(spec.vip, spec.apiserver_port), (direct.address, 6443)])
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", spec.client_netns, sys.executable, "-c", _IDLE, str(number), targets],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout and self._process.stdout.readline() == "open\n"

    def ends(self) -> dict[str, list[float | None]]:
        """When they ended, by target; they are closed now."""
        found: dict[str, list[float | None]] = {}
        for target, at in json.loads(self._process.communicate("\n", timeout=30)[0]):
            found.setdefault(target, []).append(at)
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def status(node: LabNode) -> Status:
    return ask(run_directory(node), "GET", "/status", type=Status)


def known(node: LabNode) -> int:
    return status(node).clients.connections or 0


def events(node: LabNode, kind: str) -> list[str]:
    found: list[dict[str, Any]] = ask(run_directory(node), "GET", "/events?n=200", type=list)  # type: ignore[type-var]
    return [event["text"] for event in found if event["kind"] == kind]


@pytest.mark.parametrize("fault", ["power-off", "haproxy-freeze", "link-down", "keepalived-stop"])
def test_every_idle_client_is_told(spec: LabSpec, fault: str) -> None:
    before = holder(spec)
    direct = other(spec, before)
    idle = Idle(spec, direct)
    try:
        for node in spec.nodes:
            eventually(f"{node.name} knows them", lambda node=node: known(node) >= NUMBER)
        lab.inject(spec, fault, before.name)
        eventually("the VIP moves", lambda: moved_from(spec, before) or fault == "power-off", 5)
        time.sleep(NUMBER / RATE + 3)
        at = idle.ends()
    finally:
        idle.kill()
    assert None not in at[idle.vip], f"{at[idle.vip].count(None)} do not know"
    assert set(at[idle.direct]) == {None}, "connections to a node's own address"


def test_a_drain_tells_all_in_turn_and_no_faster_than_configured(spec: LabSpec) -> None:
    before = holder(spec)
    idle = Idle(spec, other(spec, before), 3 * RATE)
    try:
        for node in spec.nodes:
            eventually(f"{node.name} knows them", lambda node=node: known(node) >= 3 * RATE)
        subprocess.run(product(before, "drain", "--for", "60s"), check=True, capture_output=True, timeout=20)
        eventually("the VIP moves", lambda: moved_from(spec, before), 5)
        time.sleep(3 + 3)
        at = idle.ends()
        eventually("the old holder tells of it", lambda: events(before, "handover"), 10)
    finally:
        idle.kill()
        subprocess.run(product(before, "undrain"), check=True, capture_output=True, timeout=20)
    assert None not in at[idle.vip]
    assert set(at[idle.direct]) == {None}
    times = sorted(each for each in at[idle.vip] if each is not None)
    assert times[-1] - times[0] > 2, f"{3 * RATE} at {RATE} a second, by the old holder and the new together"


def test_without_a_channel_nothing_is_known_nothing_is_sent_and_status_says_so(spec: LabSpec) -> None:
    before = holder(spec)
    texts = {node.directory / CONFIG: (node.directory / CONFIG).read_text() for node in spec.nodes}
    sent = [len(events(node, "tickle")) for node in spec.nodes]
    idle = Idle(spec, other(spec, before), 10)
    try:
        for file, text in texts.items():
            document = tomllib.loads(text)
            document["peers"]["cert"] = "/nowhere/node.crt"
            write(file, tomli_w.dumps(document))
        eventually("all agents are alone", lambda: all(_off(node) for node in spec.nodes), 30)
        told = subprocess.run(
            product(before, "status"), capture_output=True, text=True, timeout=20, check=False
        )
        assert "idle clients of a holder that dies are not told" in told.stdout
        lab.inject(spec, "haproxy-freeze", before.name)
        eventually("the VIP moves", lambda: moved_from(spec, before), 10)
        time.sleep(2)
        assert [len(events(node, "tickle")) for node in spec.nodes] == sent
        assert set(idle.ends()[spec.vip]) == {None}
    finally:
        idle.kill()
        for file, text in texts.items():
            write(file, text)


def write(path: Path, text: str) -> None:
    """By rename, as an editor does."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


def _off(node: LabNode) -> bool:
    try:
        return status(node).peers_off is not None
    except Exception:
        return False
