"""A new fact must last before it counts; nothing else moves a belief."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lbha.facts import HaproxyFacts, Observation
from lbha.health import HAPROXY, LOCAL, SERVING, Health, Patience, Settled, judge, settle

GOOD = Observation(
    at=100.0,
    haproxy=HaproxyFacts(None, 1, {"apiserver": 3, "etcd": 3}),
    local={"apiserver": True, "etcd": True},
    holds_vip=False,
    drained=False,
    quarantined=False,
)
DEAD = HaproxyFacts("haproxy is down: nobody listens")
NO_ETCD = HaproxyFacts(None, 1, {"apiserver": 3, "etcd": 0})


def after(*steps: tuple[float, Observation]) -> Health:
    """The health after each observation at its second."""
    health = None
    for at, seen in steps:
        health = judge(health, replace(seen, at=at))
    assert health is not None
    return health


def test_the_first_look_is_believed() -> None:
    assert after((0, GOOD)).haproxy.value and after((0, GOOD)).serving.value
    assert not after((0, replace(GOOD, haproxy=DEAD))).haproxy.value


def test_a_dead_haproxy_is_believed_at_once_and_a_living_one_after_a_while() -> None:
    dead = replace(GOOD, haproxy=DEAD)
    assert not after((0, GOOD), (0.1, dead)).haproxy.value
    assert not after((0, GOOD), (0.1, dead), (0.2, GOOD), (1.1, GOOD)).haproxy.value
    assert after((0, GOOD), (0.1, dead), (0.2, GOOD), (1.2 + 1e-6, GOOD)).haproxy.value


def test_while_haproxy_is_silent_nothing_is_known_of_its_servers() -> None:
    health = after((0, GOOD), (5, replace(GOOD, haproxy=DEAD)), (50, replace(GOOD, haproxy=DEAD)))
    assert health.serving.value and health.local["etcd"].value
    assert health.haproxy_why == DEAD.problem


def test_the_503_after_a_leader_crash_is_not_believed() -> None:
    sick = replace(GOOD, haproxy=NO_ETCD, local={"apiserver": True, "etcd": False})
    health = after((0, GOOD), (1, sick), (3.5, sick))
    assert health.serving.value and "just now" in health.serving_why
    health = after((0, GOOD), (1, sick), (3.5, sick), (4, sick))
    assert not health.serving.value and health.serving_why == "no live server: etcd"
    assert not health.local["etcd"].value and health.local["apiserver"].value


def test_a_service_that_leaves_this_node_has_no_say_any_more() -> None:
    gone = replace(GOOD, local={"apiserver": True})
    assert set(after((0, GOOD), (1, gone)).local) == {"apiserver"}


@given(st.lists(st.tuples(st.floats(0.001, 5.0), st.booleans()), min_size=1, max_size=60), st.booleans())
def test_a_belief_changes_only_after_an_unbroken_contrary(steps: list[tuple[float, bool]], start: bool) -> None:
    patience = Patience(rise=2.0, fall=1.0)
    now, belief = 0.0, Settled(start, 0.0)
    contrary: float | None = None
    for gap, seen in steps:
        now += gap
        before, belief = belief, settle(belief, seen, now, patience)
        contrary = None if seen == before.value else now if contrary is None else contrary
        if belief.value != before.value:
            assert contrary is not None and now - contrary >= (patience.rise if seen else patience.fall)
            assert belief == Settled(seen, now)
            contrary = None
        elif contrary is not None:
            assert now - contrary < (patience.rise if seen else patience.fall)


def test_the_patience_fits_what_was_measured() -> None:
    assert HAPROXY.fall == 0 < HAPROXY.rise, "a crash is a fact"
    assert SERVING.fall > 2.0, "etcd answers 503 for about 2 s after a leader crash"
    assert LOCAL.rise > LOCAL.fall, "it only prefers"
