"""Whom a holder asks to take the VIP, when, and how often."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from statuses import cluster, report

from lbha.agent import resignation
from lbha.facts import Peer, Report, VrrpFacts
from lbha.model import Cluster, Node
from lbha.resign import successor

THREE = cluster()


def drained() -> Report:
    return report(1, holds=True, drained=True)


def name(found: Report | None) -> str | None:
    return found.node if found else None


def keepalived_says(of: Report, state: str | None, priority: int | None) -> Report:
    return replace(of, vrrp=VrrpFacts(state, priority))


def test_the_one_that_will_win_is_asked() -> None:
    assert name(successor(drained(), [report(2), report(3)], THREE)) == "cp2"
    assert name(successor(drained(), [report(2, local=False), report(3)], THREE)) == "cp3"
    assert name(successor(drained(), [report(2, drained=True), report(3)], THREE)) == "cp3"


def test_between_equals_the_higher_address() -> None:
    two, three = (keepalived_says(report(n), "BACKUP", 200) for n in (2, 3))
    assert name(successor(drained(), [three, two], THREE)) == "cp3"


@pytest.mark.parametrize(
    "own",
    [
        report(1, holds=True),
        report(1, drained=True),
        report(1, holds=True, drained=True, up=False),
        keepalived_says(drained(), "BACKUP", 23),
        keepalived_says(drained(), None, None),
        keepalived_says(drained(), "MASTER", 243),  # keepalived has not read the new score yet.
    ],
    ids=["keeps it", "has it not", "FAULT does it sooner", "has given it up", "unknown", "too soon"],
)
def test_nobody_is_asked_without_need(own: Report) -> None:
    assert successor(own, [report(2), report(3)], THREE) is None


@pytest.mark.parametrize(
    "other",
    [
        report(2, up=False),
        report(2, drained=True),
        keepalived_says(report(2), "FAULT", 0),
        keepalived_says(report(2), None, None),
        keepalived_says(report(2), "BACKUP", 12),  # It would take the VIP, and give it back.
    ],
    ids=["down", "drained", "in FAULT", "unknown", "not ready"],
)
def test_nobody_is_asked_who_would_not_keep_it(other: Report) -> None:
    assert successor(drained(), [other], THREE) is None


class Wire:
    """In place of the raw socket: who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses: OSError | None = None

    def __call__(self, cluster: Cluster, node: Node, to: Node) -> None:
        self.asked.append(to.name)
        if self.refuses:
            raise self.refuses


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(resignation, "resign", wire)
    return wire


def heard(*reports: Report, ago: float = 0.0) -> tuple[Peer, ...]:
    return tuple(Peer(each.node, each, time.time() - ago, None) for each in reports)


def test_once_for_each_time(wire: Wire) -> None:
    asks = resignation.Resignation(THREE, THREE.nodes[0])
    peers = heard(report(2), report(3))
    for own in (report(1, holds=True), drained(), drained(), report(1, drained=True), drained()):
        asks.look(own, peers)
    assert wire.asked == ["cp2", "cp2"]


def test_not_on_the_word_of_old(wire: Wire) -> None:
    resignation.Resignation(THREE, THREE.nodes[0]).look(drained(), heard(report(2), ago=5.0))
    assert wire.asked == []


def test_a_wire_that_refuses_is_told(wire: Wire, caplog: Any) -> None:
    wire.refuses = OSError(1, "Operation not permitted")
    caplog.set_level("INFO")
    resignation.Resignation(THREE, THREE.nodes[0]).look(drained(), heard(report(2)))
    assert "cp2 takes the VIP a little later: Operation not permitted" in caplog.text
