"""Split brain, by pure rules: never both yield for long, the lower yields, and nothing without a proof."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statuses import cluster, report

from lbha.agent import split_brain
from lbha.agent.announce import INSIST, Insistence
from lbha.agent.split_brain import SplitBrain
from lbha.facts import Peer, Report
from lbha.split import ADVERTISED, ALONE, LEAST, REPORTED, Release, Rival, Seen, Split, step
from lbha.vrrp import rank

OWN = rank(188, "10.0.0.11")
LOWER, HIGHER = rank(177, "10.0.0.12"), rank(199, "10.0.0.12")


def look(
    before: Split, now: float, *rivals: Rival, holds: bool = True, alone: bool = False, serving: bool = True
) -> Split:
    return step(before, Seen(now, holds, OWN, rivals, alone, serving))


def by_report(heard: float, its: tuple[int, int], *, adverts: bool = False) -> Rival:
    return Rival("cp2", heard, its, report=True, adverts=adverts)


def by_advert(heard: float, its: tuple[int, int]) -> Rival:
    return Rival("cp2", heard, its, report=False, adverts=True)


def after(rivals: list[Rival], **flags: bool) -> Split:
    split = Split()
    for rival in rivals:
        split = look(split, rival.heard, rival, **flags)
    return split


def test_the_lower_of_two_that_hear_each_other_yields_and_the_higher_does_not() -> None:
    reports = [0.0, 1.0, 2.0]
    assert after([by_report(at, HIGHER) for at in reports]).release is not None
    assert after([by_report(at, LOWER) for at in reports]).release is None


def test_one_report_is_no_proof() -> None:
    split = look(Split(), 0.0, by_report(0.0, HIGHER))
    for at in (0.5, 1.0, 1.5):
        split = look(split, at, by_report(0.0, HIGHER))
    assert split.release is None, "the old holder's last word, long after its power went off"


def test_news_of_before_this_node_held_the_vip_does_not_count() -> None:
    split = look(Split(), 0.0, by_report(0.0, HIGHER), holds=False)
    assert split.rivals == {}
    assert look(split, 1.0, by_report(1.0, HIGHER)).release is None


@pytest.mark.parametrize("its", [LOWER, HIGHER])
def test_whoever_advertises_on_and_is_not_heard_otherwise_does_not_hear_us(its: tuple[int, int]) -> None:
    tenths = [at / 10 for at in range(round(ADVERTISED * 10) + 1)]
    split = after([by_advert(at, its) for at in tenths])
    assert split.release is not None and "does not hear this node" in split.release.why
    assert after([by_advert(at, its) for at in tenths[:-2]]).release is None, "a takeover in order is shorter"


def test_alone_and_unable_to_serve_the_vip_is_given_up() -> None:
    assert look(Split(), 0.0, alone=True, serving=False).release is not None
    assert look(Split(), 0.0, alone=True, serving=True).release is None, "it can serve"
    assert look(Split(), 0.0, alone=False, serving=False).release is None, "the others are no better off"
    assert look(Split(), 0.0, holds=False, alone=True, serving=False).release is None


def test_it_stays_given_up_until_the_other_is_gone() -> None:
    split = Split(release=Release("because", None, "cp2"))
    split = look(split, 0.0, by_report(0.0, HIGHER), holds=False)
    for at in (1.0, 5.0, 50.0):
        split = look(split, at, by_report(at, HIGHER), holds=False)
        assert split.release is not None
    assert look(split, 51.0, holds=False).release is None


def test_adverts_end_it() -> None:
    split = after([by_report(at, HIGHER) for at in (0.0, 1.0)])
    assert split.release is not None
    for at in (2.0, 5.0):
        split = look(split, at, by_report(at, HIGHER), holds=False)
        assert split.release is not None
    assert look(split, 6.0, by_report(6.0, HIGHER, adverts=True), holds=False).release is None


def test_a_node_that_yielded_to_one_that_it_hears_is_a_backup_soon() -> None:
    split = Split(release=Release("because", None, "cp2"))
    split = look(split, 0.0, by_advert(0.0, LOWER), holds=True)
    split = look(split, 0.1, by_advert(0.1, LOWER), holds=False)
    assert look(split, 0.2, by_advert(0.2, LOWER), holds=False).release is not None
    assert look(split, 0.1 + LEAST, by_advert(0.1 + LEAST, LOWER), holds=False).release is None


def test_cut_off_it_waits_for_a_node_or_for_servers() -> None:
    split = look(Split(), 0.0, alone=True, serving=False)
    split = look(split, 1.0, holds=False, alone=True, serving=False)
    assert look(split, 99.0, holds=False, alone=True, serving=False).release is not None
    assert look(split, 99.0, holds=False, alone=False, serving=False).release is None
    assert look(split, 99.0, holds=False, alone=True, serving=True).release is None


def test_a_rival_is_one_that_may_hold_the_vip() -> None:
    """Not one in FAULT, whose frozen keepalived does not obey, nor one that a killed keepalived left behind."""
    cp2 = cluster().nodes[1]
    for theirs, rivals in (
        (report(1, holds=True), True),
        (report(1, holds=True, up=False), False),
        (replace(report(1, holds=True), stale=True), False),
        (report(1), False),
    ):
        watch, released = SplitBrain(cluster(), cp2), None
        for at in (time.time() - 1.0, time.time()):
            peers = [Peer("cp1", theirs, at, None)]
            released = watch.look(holds=True, priority=177, peers=peers, serving=True)
        assert (released is not None) is rivals, theirs


def announced(holds: list[tuple[float, bool]], settled_from: float = 99.0) -> list[float]:
    """When a node insists that looks each 0.1 s for 10 s; `holds`: from when on it does or does not."""
    insistence, found = Insistence(), []
    for at in (turn * 0.1 for turn in range(100)):
        held = [value for since, value in holds if since <= at + 1e-6][-1]
        if insistence.due(holds=held, settled=at >= settled_from, now=at):
            found.append(round(at, 1))
    return found


def test_a_new_holder_insists_until_the_others_have_let_go() -> None:
    assert announced([(0.0, False), (1.0, True)]) == pytest.approx([1.0 + each for each in INSIST], abs=0.11)
    assert len(announced([(0.0, False), (1.0, True)], settled_from=2.5)) == 2
    assert announced([(0.0, False), (1.0, True)], settled_from=0.0) == []


def test_who_has_taken_nothing_announces_nothing() -> None:
    assert announced([(0.0, True)]) == [], "the agent has only started"
    assert announced([(0.0, False)]) == []
    assert len(announced([(0.0, False), (1.0, True), (1.6, False)])) == 1
    assert len(announced([(0.0, False), (1.0, True), (1.6, False), (2.0, True)])) == 1 + len(INSIST)


@pytest.mark.parametrize(
    ("theirs", "times"), [(report(1), 0), (report(1, holds=True), len(INSIST)), (None, len(INSIST))]
)
def test_others_have_let_go_when_they_say_so(
    monkeypatch: pytest.MonkeyPatch, theirs: Report | None, times: int
) -> None:
    said: list[object] = []
    monkeypatch.setattr(split_brain, "announce", lambda vips, interface: said.append((vips, interface)))
    clock = [100.0]
    monkeypatch.setattr(split_brain.time, "monotonic", lambda: clock[0])
    watch = SplitBrain(cluster(), cluster().nodes[1])
    watch._interface = "eth0"
    for held in (False, *[True] * 70):
        heard = time.time() if theirs else None
        # It outranks the other, so that neither yields meanwhile.
        watch.look(holds=held, priority=254, peers=[Peer("cp1", theirs, heard, None)], serving=True)
        clock[0] += 0.1
    assert said == [(("10.0.0.100",), "eth0")] * times


@dataclass
class Node:
    """A holder that stays one unless it yields, as where keepalived hears nobody."""

    name: str
    its: tuple[int, int]
    split: Split = field(default_factory=Split)
    holds: bool = True


@given(
    st.tuples(st.integers(1, 254), st.integers(1, 254)),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_of_two_that_hear_each_others_agents_exactly_the_lower_yields(
    priorities: tuple[int, int], first: float, second: float
) -> None:
    one = Node("a", rank(priorities[0], "10.0.0.11"))
    two = Node("b", rank(priorities[1], "10.0.0.12"))
    asked = {"a": first, "b": second}
    heard: dict[str, Rival] = {}
    for tick in range(60):
        now = tick / 10
        for node, peer in ((one, two), (two, one)):
            if now >= asked[node.name]:
                asked[node.name] += 1.0
                heard.pop(node.name, None)
                if peer.holds:
                    heard[node.name] = Rival(peer.name, now, peer.its, report=True, adverts=False)
            rivals = [heard[node.name]] if node.name in heard else []
            node.split = step(node.split, Seen(now, node.holds, node.its, rivals, False, True))
            if node.split.release:
                node.holds = False
    assert (one.holds, two.holds) == ((True, False) if one.its > two.its else (False, True))


moments = st.lists(
    st.tuples(st.floats(0.01, 3.0), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40
)


@given(moments)
def test_without_a_rival_only_a_holder_that_is_alone_and_cannot_serve_yields(
    history: list[tuple[float, bool, bool, bool]],
) -> None:
    now, split = 0.0, Split()
    for wait, holds, alone, serving in history:
        now += wait
        before = split
        split = look(before, now, holds=holds, alone=alone, serving=serving)
        if split.release and not before.release:
            assert holds and alone and not serving


def test_the_waits_are_longer_than_what_is_in_order() -> None:
    """A report a second, six adverts of 0.1 s until a takeover, one to settle it."""
    assert 0.5 < REPORTED <= 1.0 < ADVERTISED < 2.0 <= ALONE
