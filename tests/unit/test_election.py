"""For 1 to 7 nodes, every set of failures and every present holder: the right node wins."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from lbha.election import NodeState, elect, priority, winner
from lbha.facts import HaproxyFacts, Observation
from lbha.health import Health, Settled
from lbha.priority import agent_terms, decide

NODES = range(1, 8)
FAILBACK = (True, False)


# Of a node that takes part, an election sees three facts: does it count as serving, as local, as the holder?
# Every state is one of these eight classes, or absent: the first test proves that, so that the second has to go
# through classes only.
Counted = tuple[bool, bool, bool]
CLASSES: tuple[Counted, ...] = tuple(product((True, False), repeat=3))


def counted(state: NodeState) -> Counted | None:
    """Who is dead or in FAULT takes no part. A drained node counts for nothing but its place in the order, and
    so does a quarantined one that does not hold the VIP."""
    if not state.power or not state.haproxy:
        return None
    if state.drained or (state.quarantined and not state.holds):
        return False, False, False
    return state.serving, state.local, state.holds


def every_state() -> Iterator[NodeState]:
    return (NodeState(*facts) for facts in product((True, False), repeat=7))


def right(states: list[Counted | None], failback: bool) -> int | None:
    """A node that serves beats one that does not. Among those the holder stays, else local beats order; with
    failback, order alone decides."""
    present = [(index, state) for index, state in enumerate(states) if state is not None]
    rank = {i: (s[0], s[2] and not failback, s[1] and not failback, -i) for i, s in present}
    return max(rank, key=lambda index: rank[index], default=None)


def table(nodes: int, failback: bool) -> list[dict[Counted | None, int]]:
    """Priority by node and class."""
    sizes = agent_terms(nodes, failback=failback)
    return [
        {None: 0}
        | {
            each: priority(sizes, index, NodeState(serving=each[0], local=each[1], holds=each[2]))
            for each in CLASSES
        }
        for index in range(nodes)
    ]


@pytest.mark.parametrize("failback", FAILBACK)
@pytest.mark.parametrize("nodes", NODES)
def test_every_state_counts_as_its_class(nodes: int, failback: bool) -> None:
    sizes = agent_terms(nodes, failback=failback)
    worth = table(nodes, failback)
    for index, state in product(range(nodes), every_state()):
        assert priority(sizes, index, state) == worth[index][counted(state)]
        assert 0 <= worth[index][counted(state)] <= 254


@pytest.mark.parametrize("failback", FAILBACK)
@pytest.mark.parametrize("nodes", NODES)
def test_the_agent_decides_what_the_election_counts_with(nodes: int, failback: bool) -> None:
    sizes = agent_terms(nodes, failback=failback)
    for index, state in product(range(nodes), every_state()):
        if not state.power:
            continue
        health = Health(
            haproxy=Settled(state.haproxy, 0.0),
            haproxy_why="",
            serving=Settled(state.serving, 0.0),
            serving_why="",
            local={"etcd": Settled(state.local, 0.0)},
        )
        seen = Observation(0.0, HaproxyFacts(), {}, state.holds, state.drained, state.quarantined)
        assert decide(sizes, index, seen, health).priority == priority(sizes, index, state)


@pytest.mark.parametrize("failback", FAILBACK)
@pytest.mark.parametrize("nodes", NODES)
def test_the_right_node_wins_whatever_fails_and_whoever_holds(nodes: int, failback: bool) -> None:
    """At most one holder. The right node is carried along from prefix to prefix: the best so far stays the best
    or the next node is better."""
    worth = table(nodes, failback)
    addresses = range(nodes)
    seen = 0

    def extend(values: tuple[int, ...], best: int | None, rank: int, holder: int | None) -> None:
        nonlocal seen
        index = len(values)
        if index == nodes:
            seen += 1
            if winner(values, holder, addresses) != best:
                raise AssertionError(f"{values} of {worth}, holder {holder}: node {best} is right")
            return
        for each, value in worth[index].items():
            if each is None:
                extend((*values, value), best, rank, holder)
                continue
            if each[2] and holder is not None:
                continue
            mine = 4 * each[0] + (0 if failback else 2 * each[2] + each[1])
            better = mine > rank  # Between equals the earlier node is right.
            now = index if each[2] else holder
            extend((*values, value), index if better else best, mine if better else rank, now)

    extend((), None, -1, None)
    assert seen == 5**nodes + nodes * 4 * 5 ** (nodes - 1)


@pytest.mark.parametrize("failback", FAILBACK)
@pytest.mark.parametrize("nodes", range(1, 5))
def test_the_right_node_wins_when_several_hold_it(nodes: int, failback: bool) -> None:
    """After a partition has healed. It also checks the walk above against the plain statement of the rules."""
    worth = table(nodes, failback)
    for states in product((None, *CLASSES), repeat=nodes):
        values = [worth[index][each] for index, each in enumerate(states)]
        holder = next((index for index, each in enumerate(states) if each and each[2]), None)
        assert winner(values, holder, range(nodes)) == right(list(states), failback)


@pytest.mark.parametrize("failback", FAILBACK)
@pytest.mark.parametrize("nodes", NODES)
def test_no_two_nodes_ever_have_the_same_priority(nodes: int, failback: bool) -> None:
    """Equal priorities would be decided by address, which nobody chose."""
    values = [{value for each, value in row.items() if each} for row in table(nodes, failback)]
    for index, row in enumerate(values):
        assert not any(row & other for other in values[index + 1 :])


@pytest.mark.parametrize("failback", FAILBACK)
@pytest.mark.parametrize("nodes", range(1, 4))
def test_an_election_settles(nodes: int, failback: bool) -> None:
    """Whoever wins wins again as the holder: the holder term moves the VIP once, never back."""
    sizes = agent_terms(nodes, failback=failback)
    facts = [facts for facts in product((True, False), repeat=6) if facts[0] or not any(facts[1:])]
    for chosen in product(facts, repeat=nodes) if nodes < 3 else zip(facts, facts[1:], facts[2:], strict=False):
        states = [NodeState(*each) for each in chosen]
        first = elect(sizes, states, range(nodes)).winner
        states = [NodeState(*each, holds=index == first) for index, each in enumerate(chosen)]
        assert elect(sizes, states, range(nodes)).winner == first


def test_a_drained_node_yields_to_whoever_serves_and_stays_when_nobody_else_lives() -> None:
    sizes = agent_terms(3, failback=False)
    drained = NodeState(drained=True, holds=True)
    dead = NodeState(power=False)
    assert elect(sizes, [drained, NodeState(), NodeState()], range(3)).winner == 1
    assert elect(sizes, [drained, dead, NodeState(local=False)], range(3)).winner == 2
    assert elect(sizes, [drained, dead, NodeState(haproxy=False)], range(3)).winner == 0
    assert elect(sizes, [dead, dead, dead], range(3)).winner is None


def test_equals_are_decided_by_the_holder_then_by_the_higher_address() -> None:
    assert winner([100, 100, 50], None, [1, 2, 3]) == 1
    assert winner([100, 100, 50], 0, [1, 2, 3]) == 0
    assert winner([100, 100, 50], 2, [1, 2, 3]) == 1
    assert winner([0, 0], 0, [1, 2]) is None and winner([], None, []) is None
