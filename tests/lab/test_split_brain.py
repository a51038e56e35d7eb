"""Two holders: who gives the VIP up, how soon, and that nobody does without a proof. Needs root."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_tools import eventually, holder

from lbha.agent.client import ask
from lbha.agent.events import Event
from lbha.facts import Status
from lbha.lab import lab
from lbha.lab.load import Load
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import run_directory

_DEAF = """
table inet deaf {
    chain in {
        type filter hook input priority 0
        ip protocol 112 drop
    }
    chain out {
        type filter hook output priority 0
        ip protocol 112 drop
    }
}
"""

_MUTE_AGENTS = """
table inet deaf {
    chain in {
        type filter hook input priority 0
        tcp dport 8406 drop
        tcp sport 8406 drop
    }
}
"""


@pytest.fixture(scope="module")
def running(lab_root: Path) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    return lab.up("split", nodes=3, setup="lbha-agent")


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest, where the holder outranks the others; healed afterwards."""
    lab.wait_healthy(running, 60)
    eventually("no term is missing", lambda: all(_whole(status(node)) for node in running.nodes), 30)
    yield running
    lab.heal(running)
    lab.wait_healthy(running, 60)


def _whole(status: Status) -> bool:
    return all(term.points for term in status.report.decision.terms if term.name in ("local", "serving"))


@contextmanager
def watched(spec: LabSpec) -> Iterator[list[tuple[float, tuple[str, ...]]]]:
    """Who held the VIP from when on (s from the beginning), filled at the end."""
    from contextlib import closing

    from lbha.lab.holders import HolderWatch

    found: list[tuple[float, tuple[str, ...]]] = []
    with closing(HolderWatch(spec)) as watch:
        began = time.monotonic()
        yield found
        found += [(max(0.0, each.at - began), each.names) for each in watch.samples()]


@contextmanager
def served(spec: LabSpec) -> Iterator[Load]:
    """Under load; afterwards every acknowledged write is there."""
    with Load(spec) as load:
        time.sleep(1.0)
        yield load
        lab.heal(spec)
        lab.wait_healthy(spec, 60)
        load.probe()
        assert load.verify().lost == 0


def _good(load: Load, since: float) -> Iterator[bool]:
    """How each request has fared that began after that (monotonic s)."""
    return (request.error is None for request in load.requests() if request.start > since)


def status(node: LabNode) -> Status:
    return ask(run_directory(node), "GET", "/status", type=Status)


def kinds(node: LabNode) -> list[str]:
    return [event.kind for event in ask(run_directory(node), "GET", "/events?n=100", type=tuple[Event, ...])]


def on_the_first(spec: LabSpec) -> LabNode:
    """The first node of the file holds the VIP now, and outranks all others."""
    first = spec.nodes[0]
    if holder(spec) != first:
        lab.inject(spec, "drain", holder(spec).name)
        eventually("it is the first's", lambda: holder(spec) == first)
        lab.heal(spec)
    return first


def double(history: list[tuple[float, tuple[str, ...]]], end: float) -> float:
    """For how long (s) more than one node held it."""
    ends = [at for at, _ in history[1:]] + [end]
    return sum(until - at for (at, names), until in zip(history, ends, strict=True) if len(names) > 1)


def test_one_that_is_not_heard_yields(spec: LabSpec) -> None:
    """The first of the file: whoever takes it is lower, and no advert of theirs makes keepalived yield."""
    before = on_the_first(spec)
    with served(spec) as load:
        with watched(spec) as history:
            lab.inject(spec, "partition-one-way", before.name)
            eventually("another takes it", lambda: len(lab.holders(spec)) == 2, 5)
            eventually("one holder", lambda: len(lab.holders(spec)) == 1, 5)
            # Clients that heard the loser last would stay with it until their neighbour entry is old.
            since = time.monotonic()
            eventually("it is reached", lambda: sum(_good(load, since)) > 20, 8)
            time.sleep(4.0)
        assert len(lab.holders(spec)) == 1 and holder(spec) != before
        assert double(history, 0.0) < 4.0, history
    assert "released" in kinds(before)
    assert len(lab.holders(spec)) == 1


def test_a_minority_that_cannot_serve_yields_and_healed_there_is_one(spec: LabSpec) -> None:
    before = holder(spec)
    with served(spec):
        lab.inject(spec, "partition", before.name)
        eventually("each side has one", lambda: len(lab.holders(spec)) == 2, 5)
        eventually("the minority yields", lambda: len(lab.holders(spec)) == 1, 20)
        assert holder(spec) != before
        assert (status(before).split.released or "").startswith("cut off")
        with watched(spec) as history:
            lab.heal(spec)
            time.sleep(4.0)
        assert all(len(names) == 1 for _, names in history), history
    assert "released" in kinds(before)


def test_whoever_takes_over_from_a_killed_keepalived_keeps_it(spec: LabSpec) -> None:
    """The dead one's VIP stays for a second, beside a higher priority: that is no rival."""
    before = on_the_first(spec)
    releases = [kinds(node).count("released") for node in spec.nodes]
    with served(spec):
        with watched(spec) as history:
            lab.inject(spec, "keepalived-kill", before.name)
            eventually("another takes it", lambda: len(lab.holders(spec)) == 2, 5)
            time.sleep(4.0)
        after = holder(spec)
        assert after != before
        gained = next(at for at, names in history if after.name in names)
        assert all(after.name in names for at, names in history if at >= gained), history
    assert [kinds(node).count("released") for node in spec.nodes] == releases


def test_agents_that_hear_each_other_settle_it_without_vrrp(spec: LabSpec) -> None:
    """A firewall that drops protocol 112 and nothing else."""
    before = holder(spec)
    others = [node for node in spec.nodes if node != before]
    nft = ["ip", "netns", "exec", before.netns, "nft"]
    subprocess.run([*nft, "-f", "-"], input=_DEAF, text=True, check=True)
    try:
        eventually("a second holder", lambda: len(lab.holders(spec)) > 1, 5)
        eventually("one holder", lambda: len(lab.holders(spec)) == 1, 10)
        now = holder(spec)
        time.sleep(5.0)
        assert holder(spec) == now, "it stays settled"
        loser = before if now != before else others[0]
        assert status(now).report.decision.up
        if now != before:
            assert status(loser).split.released
    finally:
        subprocess.run([*nft, "delete", "table", "inet", "deaf"], check=True)
    eventually("nobody is released any more", lambda: not any(status(n).split.released for n in spec.nodes), 20)


def test_agents_that_do_not_hear_each_other_move_nothing(spec: LabSpec) -> None:
    before = holder(spec)
    nft = ["ip", "netns", "exec", before.netns, "nft"]
    subprocess.run([*nft, "-f", "-"], input=_MUTE_AGENTS, text=True, check=True)
    try:
        eventually("they are silent", lambda: all(peer.silent for peer in status(before).peers))
        with watched(spec) as history:
            time.sleep(6.0)
        assert [names for _, names in history] == [(before.name,)]
        assert status(before).split.released is None
    finally:
        subprocess.run([*nft, "delete", "table", "inet", "deaf"], check=True)


def test_a_stranger_on_the_virtual_router_id_is_told(spec: LabSpec) -> None:
    """The client sends adverts, with the lowest priority, that keepalived does not obey."""
    node = holder(spec)
    text = (node.directory / "keepalived.conf").read_text()
    router = int(text.split("virtual_router_id ")[1].split()[0])
    advert = struct.pack("!BBBBHH4s", 0x31, router, 1, 1, 10, 0, bytes([10, 77, 0, 222]))
    code = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)\n"
        "s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)\n"
        f"s.sendto(bytes.fromhex({advert.hex()!r}), ({node.address!r}, 0))\n"
    )
    argv = ["ip", "netns", "exec", spec.client_netns, sys.executable, "-c", code]
    subprocess.run(argv, check=True, timeout=10)
    eventually(
        "it is told", lambda: [each.addresses for each in status(node).split.strangers] == [("10.77.0.222",)]
    )
    eventually("and kept", lambda: "stranger" in kinds(node))
    assert holder(spec) == node
