"""The agent's decision: terms, FAULT, drain, quarantine; the inequalities for every size of cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_health import GOOD

from lbha.facts import Decision, Observation
from lbha.health import Health, Settled
from lbha.priority import HIGHEST, Terms, agent_terms, decide

WELL = Health(
    Settled(True, 0), "haproxy answers", Settled(True, 0), "every service has a live server",
    {"etcd": Settled(True, 0)},
)  # fmt: skip
SIZES = [(nodes, failback) for nodes in range(1, 33) for failback in (True, False)]


def of(sizes: Terms, index: int, *, holder: bool = False, local: bool = True, serving: bool = True) -> Decision:
    health = replace(WELL, serving=Settled(serving, 0), local={"etcd": Settled(local, 0)})
    return decide(sizes, index, replace(GOOD, holds_vip=holder), health)


@pytest.mark.parametrize(("nodes", "failback"), SIZES)
def test_every_term_outweighs_those_before_it(nodes: int, failback: bool) -> None:
    sizes = agent_terms(nodes, failback=failback)
    order = (nodes - 1) * sizes.step
    assert sizes.step >= 1
    assert sizes.local == 0 or sizes.local > order
    assert failback or sizes.holder > order + sizes.local
    assert sizes.serving > order + sizes.local + sizes.holder
    best, worst = of(sizes, 0, holder=True), of(sizes, nodes - 1, local=False, serving=False)
    assert best.priority == HIGHEST or sizes.local == 0
    assert best.priority <= HIGHEST and worst.priority >= 1


@pytest.mark.parametrize(("nodes", "failback"), SIZES)
def test_no_two_nodes_in_the_same_state_are_equal(nodes: int, failback: bool) -> None:
    sizes = agent_terms(nodes, failback=failback)
    for serving in (True, False):
        ranks = [of(sizes, index, serving=serving).priority for index in range(nodes)]
        assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == nodes


def test_fault_is_kept_for_a_haproxy_that_cannot_serve() -> None:
    sizes = agent_terms(3, failback=False)
    sick = replace(WELL, haproxy=Settled(False, 0), haproxy_why="haproxy is down")
    decision = decide(sizes, 0, GOOD, sick)
    assert not decision.up and decision.priority == 0 and decision.why == "haproxy is down"
    assert of(sizes, 0, serving=False, local=False).up, "no live backend is no FAULT: if all are sick, stay put"


@pytest.mark.parametrize("seen", [replace(GOOD, drained=True, holds_vip=True), replace(GOOD, quarantined=True)])
def test_drained_and_quarantined_nodes_serve_only_when_nobody_else_can(seen: Observation) -> None:
    sizes = agent_terms(3, failback=False)
    idle = decide(sizes, 0, seen, WELL)
    assert idle.up and idle.score == 0
    assert idle.priority < of(sizes, 2, local=False).priority, "the least of those that serve"
    assert idle.priority > of(sizes, 2, local=False, serving=False).priority


def test_a_holder_is_never_in_quarantine() -> None:
    decision = decide(agent_terms(3, failback=False), 0, replace(GOOD, quarantined=True, holds_vip=True), WELL)
    assert decision.score == agent_terms(3, failback=False).serving + 33 + 66


def test_terms_add_up_and_say_why() -> None:
    sizes = agent_terms(3, failback=False)
    decision = of(sizes, 1, holder=True, local=False)
    assert [(term.name, term.points) for term in decision.terms] == [
        ("order", 12), ("local", 0), ("holder", 66), ("serving", 132),
    ]  # fmt: skip
    assert decision.priority == sum(term.points for term in decision.terms) == 210
    assert decision.terms[1].why == "down on this node: etcd"
