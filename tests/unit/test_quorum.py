"""etcd's quorum as it is believed: a proof counts at once, a loss must last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbha.facts import EtcdFacts, EtcdMember
from lbha.model import Endpoint
from lbha.quorum import HOLD, believe

START = EtcdFacts("etcd", None, 100.0, ())


def member(what: str, number: int = 0) -> EtcdMember:
    """`led`, `leaderless` or `silent`."""
    problem = "no answer" if what == "silent" else None
    return EtcdMember("etcd", Endpoint(f"10.0.0.{number + 1}", 2379), what == "led", False, problem)


def seen(before: EtcdFacts, now: float, *what: str) -> EtcdFacts:
    return believe(before, [member(each, number) for number, each in enumerate(what)], now)


def test_one_member_with_a_leader_proves_a_quorum_at_once() -> None:
    found = seen(START, 101.0, "silent", "led", "leaderless")
    assert (found.quorum, found.since, found.leaderless) == (True, 101.0, None)


def test_an_election_is_no_loss() -> None:
    facts = seen(START, 101.0, "led", "led", "led")
    for tenth in range(20):
        facts = seen(facts, 102.0 + tenth / 10, "silent", "leaderless", "leaderless")
        assert facts.quorum is True
    facts = seen(facts, 104.1, "silent", "led", "led")
    assert (facts.quorum, facts.since, facts.leaderless) == (True, 101.0, None)


def test_a_loss_is_dated_from_its_beginning() -> None:
    facts = seen(START, 101.0, "led", "led", "led")
    facts = seen(facts, 110.0, "silent", "silent", "leaderless")
    assert facts.quorum is True
    facts = seen(facts, 110.0 + HOLD, "silent", "silent", "leaderless")
    assert (facts.quorum, facts.since) == (False, 110.0)
    facts = seen(facts, 130.0, "silent", "led", "led")
    assert (facts.quorum, facts.since) == (True, 130.0)


def test_where_nobody_answers_nothing_is_known() -> None:
    facts = seen(START, 101.0, "led", "led", "led")
    facts = seen(facts, 102.0, "silent", "silent", "silent")
    assert (facts.quorum, facts.since, facts.leaderless) == (None, 102.0, None)


def test_silence_neither_ends_a_loss_nor_dates_it_anew() -> None:
    facts = seen(START, 110.0, "silent", "leaderless")
    facts = seen(facts, 110.0 + HOLD, "silent", "leaderless")
    for what in ("silent", "leaderless", "silent"):
        facts = seen(facts, 120.0, "silent", what)
        assert (facts.quorum, facts.since) == (False, 110.0)
    assert seen(facts, 130.0, "led", "led").quorum is True


asked = st.tuples(st.floats(0.01, 10.0), st.lists(st.sampled_from(["led", "leaderless", "silent"]), max_size=5))


@given(st.lists(asked, max_size=30))
def test_lost_is_said_only_after_nobody_knew_a_leader_for_long_enough(
    history: list[tuple[float, list[str]]],
) -> None:
    now, facts, last_proof = 100.0, START, 100.0
    for wait, what in history:
        now += wait
        facts = seen(facts, now, *what)
        if "led" in what or ("leaderless" not in what and facts.quorum is None):
            last_proof = now
        if facts.quorum is False:
            assert now - last_proof >= HOLD and facts.since >= last_proof
        if "led" in what:
            assert facts.quorum is True
