"""Which events follow from two statuses, and that noise makes none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from statuses import NOW, alone, report, server, silent, status, with_report, with_servers

from lbha.agent.events import Event
from lbha.agent.told import told
from lbha.facts import Applied, Drain, EtcdFacts, HaproxyFacts, Report, Status, VrrpFacts


def kinds(before: Status | None, now: Status) -> list[tuple[str, str | None]]:
    return [(event.kind, event.cause) for event in told(before, now)]


def one(before: Status, now: Status) -> Event:
    (event,) = told(before, now)
    assert event.at == now.report.at
    return event


def vip_moves_here(now: Status) -> Event:
    """cp2 is told why it has the VIP now that cp1 had."""
    return next(event for event in told(status(own=2), now) if event.kind == "vip-gained")


def gained(old_holder: Report) -> Event:
    now = with_report(replace(status(own=2), report=report(2, holds=True)), old_holder)
    return vip_moves_here(now)


def test_an_agent_that_starts_says_what_it_found() -> None:
    assert "it holds the VIP" in one(None, status()).text  # type: ignore[arg-type]
    assert kinds(None, status(own=2)) == [("agent-started", None)]


def test_the_same_again_is_nothing() -> None:
    assert told(status(), status()) == []


def test_noise_is_nothing() -> None:
    """Time, sessions, lag, checks, pids after a reload, workers that come and go, an apply without a change."""
    later = replace(
        status(),
        report=replace(report(1, holds=True), at=NOW + 1),
        lag_ms=80.0,
        quarantined=0.0,
        applied=Applied(NOW + 1, "unchanged", "haproxy: unchanged"),
        haproxy=replace(status().haproxy, pid=9),
    )
    changed = (replace(each, sessions=99, reason="L7OK 200: ok") for each in later.haproxy.servers)
    assert told(status(), with_servers(later, *changed)) == []


@pytest.mark.parametrize(
    ("old_holder", "cause", "words"),
    [
        (report(1, up=False), "fault", "cp1 held it and is in FAULT: haproxy has ended"),
        (report(1, drained=True), "drain", "cp1 held it and is drained"),
        (replace(report(1), vrrp=VrrpFacts(problem="keepalived is down")), "keepalived", "keepalived is down"),
        (report(1, serving=False), "priority", "beats cp1's"),
        (report(1, holds=True), "unknown", "seems well"),
    ],
)
def test_why_the_vip_came(old_holder: Report, cause: str, words: str) -> None:
    event = gained(old_holder)
    assert event.cause == cause and words in event.text and "10.0.0.100" in event.text


def test_the_vip_came_from_a_node_that_went_silent() -> None:
    now = silent(replace(status(own=2), report=report(2, holds=True)), "cp1")
    assert vip_moves_here(now).cause == "silent" and "no route to host" in vip_moves_here(now).text


def test_the_vip_came_and_nobody_knows_from_where() -> None:
    nobody = replace(status(own=2, holder=0), report=report(2, holds=True))
    assert kinds(status(own=2, holder=0), nobody) == [("vip-gained", "election")]
    blind = alone(status(own=2))
    assert kinds(blind, replace(blind, report=report(2, holds=True))) == [("vip-gained", "unknown")]


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (report(1, up=False), "fault"),
        (report(1, drained=True), "drain"),
        (replace(report(1), vrrp=VrrpFacts(problem="keepalived is down")), "keepalived"),
        (replace(report(1), vrrp=VrrpFacts("FAULT")), "keepalived"),
        (report(1, serving=False), "priority"),
        (report(1), "unknown"),
    ],
)
def test_why_the_vip_left(now: Report, cause: str) -> None:
    events = told(status(), replace(status(), report=now))
    (left,) = (event for event in events if event.kind == "vip-lost")
    assert left.cause == cause
    assert left is events[-1], "the reason comes before what follows from it"


def test_a_fault_and_its_end() -> None:
    bad = replace(status(own=2), report=report(2, up=False), haproxy=HaproxyFacts("haproxy has ended"))
    assert kinds(status(own=2), bad) == [("haproxy-down", None), ("fault", "haproxy")]
    assert kinds(bad, status(own=2)) == [("haproxy-up", None), ("recovered", None)]


def test_keepalived_in_fault_on_its_own() -> None:
    bad = replace(status(own=2), report=replace(report(2), vrrp=VrrpFacts("FAULT")))
    assert kinds(status(own=2), bad) == [("fault", "keepalived")]
    assert kinds(bad, status(own=2)) == [("recovered", None)]


def test_a_term_that_is_lost_says_what_it_was_worth() -> None:
    event = one(status(own=2), replace(status(own=2), report=report(2, local=False)))
    assert event.kind == "priority" and "177 -> 144" in event.text and "-33 local" in event.text, event.text


def test_servers_down_and_up() -> None:
    down = with_servers(status(), server("etcd", 3, "DOWN", "L4CON: Connection refused"))
    event = one(status(), down)
    assert (event.kind, event.text) == ("server-down", "etcd/cp3 is DOWN (L4CON: Connection refused)")
    assert kinds(down, status()) == [("server-up", None)]
    assert kinds(status(), with_servers(status(), server("etcd", 3, "UP 1/3"))) == []


def test_many_servers_at_once_are_one_event() -> None:
    big = status(9)
    down = with_servers(big, *(server("etcd", n, "DOWN") for n in range(1, 9)))
    assert one(big, down).text == "etcd: 8 servers: cp1, cp2, cp3, cp4, cp5 and 3 more"


def test_servers_while_haproxy_is_away() -> None:
    """Frozen, it leaves its last word; dead, none. Neither is a change of servers."""
    frozen = replace(status(), haproxy=replace(status().haproxy, problem="frozen"))
    dead = replace(status(), haproxy=HaproxyFacts("haproxy has ended"))
    down = with_servers(status(), server("etcd", 3, "DOWN"))
    assert kinds(status(), frozen) == kinds(status(), dead) == [("haproxy-down", None)]
    assert kinds(frozen, down) == [("haproxy-up", None), ("server-down", None)]
    assert kinds(dead, down) == [("haproxy-up", None)]
    assert kinds(replace(status(), haproxy=HaproxyFacts()), status()) == []


def test_new_servers_are_no_change_of_health() -> None:
    assert told(status(), with_servers(status(), server("etcd", 4, "DOWN"))) == []


@pytest.mark.parametrize(
    ("was", "now", "kind"),
    [
        (True, False, ["quorum-lost"]),
        (None, False, ["quorum-lost"]),
        (False, True, ["quorum-back"]),
        (None, True, []),
        (True, None, []),
        (False, None, []),
    ],
)
def test_quorum(was: bool | None, now: bool | None, kind: list[str]) -> None:
    def seen(quorum: bool | None) -> Status:
        return replace(status(), etcd=(EtcdFacts("etcd", quorum, NOW, ()),))

    assert [event.kind for event in told(seen(was), seen(now))] == kind


def test_peers_lost_and_back() -> None:
    assert kinds(status(), silent(status(), "cp2")) == [("peer-lost", None)]
    assert kinds(silent(status(), "cp2"), silent(status(), "cp2", "timed out")) == []
    assert kinds(silent(status(), "cp2"), status()) == [("peer-back", None)]
    assert kinds(silent(status(), "cp2", "not asked yet"), status()) == []
    assert kinds(silent(status(), "cp2", "not asked yet"), silent(status(), "cp2")) == [("peer-lost", None)]
    assert kinds(status(), alone(status())) == kinds(alone(status()), status()) == []


def test_a_drain_and_its_two_ends() -> None:
    drained = replace(status(own=2), drain=Drain(NOW, NOW + 60, "kernel"), report=report(2, drained=True))
    assert one(status(own=2), drained).text == "cp2 is drained for 60 s: kernel"
    assert kinds(drained, status(own=2)) == [("undrain", "operator")]
    later = replace(status(own=2), report=report(2, at=NOW + 61))
    assert kinds(drained, later) == [("undrain", "expired")]


def test_applied_and_refused() -> None:
    done = replace(status(), applied=Applied(NOW, "applied", "haproxy: reloaded"))
    assert kinds(status(), done) == [("applied", None)]
    refused = replace(status(), refused="line 3: …", applied=Applied(NOW, "refused", "line 3: …"))
    assert kinds(status(), refused) == [("refused", None)]
    again = replace(refused, applied=Applied(NOW + 10, "refused", "line 3: …"))
    assert kinds(refused, again) == []
    assert kinds(refused, done) == [("applied", None)]


def test_discovery_that_fails_and_answers_again() -> None:
    pool = replace(status().pools[1], age=30.0, error="etcd does not answer")
    stale = replace(status(), pools=(status().pools[0], pool))
    assert kinds(status(), stale) == [("stale", None)]
    assert kinds(stale, stale) == []
    assert kinds(stale, status()) == [("fresh", None)]
