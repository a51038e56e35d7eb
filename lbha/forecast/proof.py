"""Every set of failures elects the right node, and whoever is elected stays: by enumeration. Pure.

A node is dead, or its haproxy is (FAULT), or it takes part: with or without a server for every service, with or
without healthy backends of its own, drained, just booted, or neither, and it may hold the VIP. In script mode
it counts how many of its own backends are healthy, and nothing else.

Few nodes: every situation of all nodes together is elected. Many: the highest priority wins, so it is enough,
and as complete, that any two nodes in any two conditions are ranked as the rules below rank them. One node at
most holds the VIP in what is counted; the pairs hold for two as well, as after a partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from lbha.election import NodeState, priority, winner
from lbha.model import Cluster, Mode
from lbha.priority import Terms, agent_terms, terms

AT_ONCE = 20_000
"""Situations that are elected one by one (some 0.1 s); beyond that, pairs."""

DEAD, FAULT = "dead", "haproxy dead"


@dataclass(frozen=True, slots=True)
class Condition:
    """What may be the matter with a node, in `words`; its priority for each place in the file; its rank by the
    rules, of which order (the earlier node) decides between equals. `rank` None: it takes no part."""

    words: str
    holds: bool
    priorities: tuple[int, ...]
    rank: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Proof:
    """`situations` are covered, by `compared` elections or, where that is less, pairs of nodes. `wrong`: one
    that elects another node than the right one, in words; None when all are right."""

    mode: Mode
    failback: bool
    nodes: int
    situations: int
    compared: int
    wrong: str | None


def prove(cluster: Cluster, mode: Mode) -> tuple[Proof, ...]:
    """For this cluster's nodes in that mode, with both settings of failback, the file's own first."""
    names = tuple(node.name for node in cluster.nodes)
    services, own = len(cluster.services), cluster.failover.failback
    found = []
    for failback in (own, not own):
        count = len(names)
        if mode is Mode.AGENT:
            conditions = agent_conditions(agent_terms(count, failback=failback), failback=failback)
        else:
            conditions = script_conditions(terms(count, services, failback=failback), services)
        found.append(enumerate_all(names, conditions, mode, failback=failback))
    return tuple(found)


def agent_conditions(sizes: Terms, *, failback: bool) -> tuple[Condition, ...]:
    """Every condition of a node whose agent decides. The rules: whoever serves; among those the holder, unless
    failback is on; then whose own backends are well, unless failback is on; then the order of the file. A
    drained or just booted node counts for its place alone, but who holds the VIP is no longer just booted."""
    states: list[tuple[str, NodeState]] = [
        (DEAD, NodeState(power=False)),
        (FAULT, NodeState(haproxy=False)),
    ]
    for serving, local, excuse, holds in product(
        (True, False), (True, False), ("", "drained", "just booted"), (False, True)
    ):
        parts = ["" if serving else "no server", "" if local else "own backend sick", excuse]
        words = ", ".join(filter(None, parts)) or "well"
        drained, booted = excuse == "drained", excuse == "just booted"
        states.append(
            (words, NodeState(serving=serving, local=local, drained=drained, quarantined=booted, holds=holds))
        )
    preferred = bool(sizes.local) and not failback
    return tuple(
        Condition(
            words,
            state.holds,
            tuple(priority(sizes, index, state) for index in range(sizes.nodes)),
            _agent_rank(state, failback=failback, preferred=preferred),
        )
        for words, state in states
    )


def _agent_rank(state: NodeState, *, failback: bool, preferred: bool) -> tuple[int, ...] | None:
    if not (state.power and state.haproxy):
        return None
    if state.drained or (state.quarantined and not state.holds):
        return (0, 0, 0)
    return int(state.serving), int(state.holds and not failback), int(state.local and preferred)


def script_conditions(sizes: Terms, services: int) -> tuple[Condition, ...]:
    """Every condition of a node whose keepalived adds up. The rules: the holder (no holder term: nobody), then
    who has more healthy backends of its own (no local term: no matter), then the order of the file."""
    none = tuple(0 for _ in range(sizes.nodes))
    found = [Condition(DEAD, False, none, None), Condition(FAULT, False, none, None)]
    counted = services if sizes.local else 0
    for sick, holds in product(range(counted + 1), (False, True)):
        values = tuple(
            sizes.base(index, counted) - sick * sizes.local + holds * sizes.holder
            for index in range(sizes.nodes)
        )
        words = f"{sick} of its own backends sick" if sick else "well"
        found.append(Condition(words, holds, values, (int(holds and sizes.holder > 0), -sick)))
    return tuple(found)


def enumerate_all(
    names: Sequence[str], conditions: Sequence[Condition], mode: Mode, *, failback: bool
) -> Proof:
    """Elect in every situation, or compare every pair where those are too many."""
    idle = sum(not condition.holds for condition in conditions)
    holding, count = len(conditions) - idle, len(names)
    situations = idle**count + count * holding * idle ** (count - 1)
    proof = Proof(mode, failback, count, situations, 0, None)
    if situations <= AT_ONCE:
        return replace(proof, compared=situations, wrong=_first(_elected(names, conditions)))
    pairs = count * (count - 1) // 2 * len(conditions) ** 2
    return replace(proof, compared=pairs, wrong=_first(_pairs(names, conditions)))


def _first(wrong: Iterator[str]) -> str | None:
    return next(wrong, None)


def _elected(names: Sequence[str], conditions: Sequence[Condition]) -> Iterator[str]:
    """Every situation in which another node than the right one wins, or the right one loses the VIP as soon as
    it has it."""
    count, addresses = len(names), range(len(names))
    idle = [each for each in conditions if not each.holds]
    holding = [each for each in conditions if each.holds]
    with_vip = {each.words: each for each in holding}
    without = {each.words: each for each in idle}
    for holder in (None, *range(count)):
        for chosen in product(*(holding if index == holder else idle for index in range(count))):
            values = [each.priorities[index] for index, each in enumerate(chosen)]
            won = winner(values, holder, addresses)
            if won != (right := right_one(chosen)):
                yield _told(names, chosen, won, right)
            elif won is not None and won != holder:
                then = list(chosen)
                then[won] = with_vip[chosen[won].words]
                if holder is not None:
                    then[holder] = without[chosen[holder].words]
                values = [each.priorities[index] for index, each in enumerate(then)]
                if (again := winner(values, won, addresses)) != won:
                    yield f"{_told(names, chosen, won, right)}, and then {_name(names, again)}"


def right_one(chosen: Sequence[Condition]) -> int | None:
    """Whom the rules want: the highest rank, between equals the first of the file; None: nobody takes part."""
    ranked = [(each.rank, -index) for index, each in enumerate(chosen) if each.rank is not None]
    return -max(ranked)[1] if ranked else None


def _pairs(names: Sequence[str], conditions: Sequence[Condition]) -> Iterator[str]:
    """Every two nodes and conditions that the priorities rank otherwise than the rules, and every node that the
    VIP itself would make worse: then whoever is elected might not stay."""
    without = {each.words: each for each in conditions if not each.holds}
    for holding in (each for each in conditions if each.holds):
        for name, before, then in zip(
            names, without[holding.words].priorities, holding.priorities, strict=True
        ):
            if then < before:
                yield f"{name} {holding.words}: {before} without the VIP, {then} with it: it would not stay"
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            for one, other in product(conditions, conditions):
                values = one.priorities[first], other.priorities[second]
                won = None if not any(values) else int(values[1] > values[0])
                if values[0] == values[1] and any(values):
                    won = -1
                if won != (right := right_one((one, other))):
                    two = (names[first], names[second])
                    yield _told(two, (one, other), None if won == -1 else won, right, equal=won == -1)


def _told(
    names: Sequence[str],
    chosen: Sequence[Condition],
    won: int | None,
    right: int | None,
    *,
    equal: bool = False,
) -> str:
    states = "; ".join(
        f"{name} {each.words}{', holds the VIP' if each.holds else ''} ({each.priorities[index]})"
        for index, (name, each) in enumerate(zip(names, chosen, strict=True))
    )
    wins = "their priorities are equal" if equal else f"{_name(names, won)} wins"
    return f"{states}: {wins}, {_name(names, right)} is right"


def _name(names: Sequence[str], index: int | None) -> str:
    return "nobody" if index is None else names[index]
