"""The product's own proof of its elections: complete, and able to find a counterexample."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statuses import cluster

from lbha.forecast import proof
from lbha.forecast.proof import agent_conditions, enumerate_all, prove, script_conditions
from lbha.model import Cluster, Mode, Node
from lbha.priority import Terms, agent_terms, terms


def of_size(nodes: int, failback: bool = False) -> Cluster:
    base = cluster()
    return replace(
        base,
        nodes=tuple(Node(f"cp{n}", (f"10.0.0.{n}",)) for n in range(1, nodes + 1)),
        failover=replace(base.failover, failback=failback),
    )


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("nodes", range(1, 33))
def test_the_right_node_is_elected(nodes: int, mode: Mode) -> None:
    began = time.process_time()
    for found in prove(of_size(nodes), mode):
        assert found.wrong is None and found.nodes == nodes and found.situations > 0
    if nodes <= 7:
        assert time.process_time() - began < 1.0


def test_what_was_enumerated() -> None:
    """A node is in one of 14 conditions without the VIP, in one of 12 with it."""
    own, other = prove(of_size(3, failback=True), Mode.AGENT)
    assert (own.failback, other.failback) == (True, False)
    assert own.situations == own.compared == 14**3 + 3 * 12 * 14**2
    seven = prove(of_size(7), Mode.AGENT)[0]
    assert seven.situations == 14**7 + 7 * 12 * 14**6 and seven.compared == 21 * 26**2


@pytest.mark.parametrize("at_once", [proof.AT_ONCE, 0])
@pytest.mark.parametrize("weak", ["holder", "serving", "local", "step"])
def test_sizes_that_are_too_small_are_found_out(
    monkeypatch: pytest.MonkeyPatch, weak: str, at_once: int
) -> None:
    monkeypatch.setattr(proof, "AT_ONCE", at_once)
    sizes = replace(agent_terms(3, failback=False), **{weak: 5})
    found = enumerate_all(("a", "b", "c"), agent_conditions(sizes, failback=False), Mode.AGENT, failback=False)
    if weak == "step":
        assert found.wrong is None, "smaller steps alone rank everybody as before"
    else:
        assert found.wrong and "is right" in found.wrong
    flat = replace(terms(3, 2, failback=False), step=0)
    found = enumerate_all(("a", "b", "c"), script_conditions(flat, 2), Mode.SCRIPT, failback=False)
    assert found.wrong is not None


sizes = st.builds(
    Terms,
    nodes=st.just(3),
    step=st.integers(0, 30),
    local=st.integers(0, 60),
    holder=st.integers(-20, 80),
    floor=st.just(1),
    serving=st.integers(0, 120),
)


@settings(deadline=None)
@given(sizes=sizes, failback=st.booleans())
def test_pairs_find_whatever_elections_find(sizes: Terms, failback: bool) -> None:
    """What justifies the short way: where no pair is ranked wrongly, no election of all nodes goes wrong."""
    conditions = agent_conditions(sizes, failback=failback)
    if next(proof._pairs(("a", "b", "c"), conditions), None) is None:
        assert next(proof._elected(("a", "b", "c"), conditions), None) is None
