"""`lbha status` and `lbha explain` of recorded statuses, at several widths."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from statuses import (
    NOW,
    OFF,
    alone,
    cluster,
    decided,
    report,
    server,
    silent,
    status,
    with_report,
    with_servers,
)

from lbha.agent import show
from lbha.agent.events import Event
from lbha.agent.explain import explain, lines
from lbha.agent.problems import problems
from lbha.agent.words import span
from lbha.facts import Applied, ClientFacts, Drain, HaproxyFacts, OldWorker, Status, VrrpFacts
from lbha.outcome import after


def printed(found: Status, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(show.status(found, NOW))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def wrong(found: Status) -> list[str]:
    return [problem.text for problem in problems(found, NOW) if problem.wrong]


def noted(found: Status) -> list[str]:
    return [problem.text for problem in problems(found, NOW) if not problem.wrong]


@pytest.mark.parametrize("found", [status(), status(own=2), status(1), status(7, 5, 3), status(six=True)])
def test_a_healthy_cluster_is_healthy(found: Status) -> None:
    assert problems(found, NOW) == []
    assert "healthy" in printed(found).splitlines()


def test_who_holds_it_and_each_term_of_each_priority() -> None:
    text = printed(status(own=2))
    assert "cluster prod: VIP 10.0.0.100 is held by cp1" in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("cp")}
    assert rows["cp1"][1:8] == ["here", "MASTER", "254", "23", "33", "66", "132"]
    assert rows["cp2"][1:8] == ["-", "BACKUP", "177", "12", "33", "0", "132"], rows["cp2"]


def with_member(found: Status, **changes: Any) -> Status:
    """The first etcd member tells otherwise."""
    (etcd,) = found.etcd
    return replace(
        found, etcd=(replace(etcd, members=(replace(etcd.members[0], **changes), *etcd.members[1:])),)
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("found", [status(), status(7), status(7, six=True), alone(status()), status(1)])
def test_it_fits(found: Status, width: int) -> None:
    text = printed(found, width)
    assert max(map(len, text.splitlines())) <= width
    for node in (found.report.node, *(peer.node for peer in found.peers)):
        assert any(line.split()[:1] == [node] for line in text.splitlines())
    if width == 120:
        assert all(str(each.endpoint) in text for each in found.haproxy.servers)


def test_what_is_wrong_comes_first_and_is_counted() -> None:
    found = with_servers(status(), server("etcd", 3, "DOWN", "L4CON: Connection refused"))
    lines = printed(found).splitlines()
    assert lines[1] == "! etcd: cp3 DOWN"
    assert "L4CON: Connection refused" in "".join(lines)
    assert wrong(found) == ["etcd: cp3 DOWN"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (with_report(status(), report(2, holds=True)), "2 nodes hold 10.0.0.100: cp1 and cp2"),
        (status(holder=0), "nobody holds 10.0.0.100"),
        (with_report(status(), report(2, up=False)), "cp2 is in FAULT: haproxy has ended"),
        (with_report(status(), report(2, serving=False)), "cp2 does not serve: no live server: etcd"),
        (
            with_report(status(), decided(report(2), score=0)),
            "keepalived of cp2 has priority 177, lbha decided 12",
        ),
        (with_report(status(), replace(report(2), vrrp=VrrpFacts("FAULT"))), "keepalived of cp2 is in FAULT"),
        (with_report(status(), replace(report(2), vrrp=VrrpFacts(problem="down"))), "keepalived of cp2: down"),
        (silent(status(), "cp3"), "cp3 is not heard: no route to host"),
        (replace(status(), refused="cluster.vip: 'x' …"), "lbha.toml is refused"),
        (
            replace(status(), etcd=(replace(status().etcd[0], quorum=False),)),
            "etcd has lost its quorum, since ",
        ),
        (with_member(status(), learner=True), "etcd: 10.0.0.11:2379 is a learner"),
        (with_member(status(), alarms=("NOSPACE",)), "etcd has raised the alarm NOSPACE: writes are refused"),
        (replace(status(), pools=(replace(status().pools[0], error="no answer", age=9.0),)), "discovery of"),
        (with_servers(status(), *(server("etcd", n, "DOWN") for n in (1, 2, 3))), "etcd has no live server"),
    ],
)
def test_each_thing_that_can_be_wrong(found: Status, words: str) -> None:
    assert any(words in text for text in wrong(found)), wrong(found)
    assert words.split(":")[0][:60] in printed(found)


def test_a_refusal_that_is_over_is_told_as_the_last_apply_and_not_as_wrong() -> None:
    found = replace(status(), applied=Applied(NOW, "refused", "haproxy did not answer"))
    assert wrong(found) == []
    assert "refused: haproxy did not answer" in printed(found)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (alone(status()), f"the agents do not hear each other: {OFF}"),
        (
            replace(status(), drain=Drain(NOW, None, "kernel"), report=report(1, drained=True, holds=True)),
            "kernel",
        ),
        (with_report(status(), report(2, drained=True)), "cp2 is drained"),
        (replace(status(), quarantined=12.0), "booted just now"),
        (with_servers(status(), server("etcd", 3, "MAINT")), "etcd: cp3 MAINT"),
        (with_report(status(), replace(report(2), config="other")), "cp2 has another lbha.toml than cp1"),
        (with_report(status(), replace(report(2), version="0.3.0")), "cp2 runs lbha 0.3.0"),
        (replace(status(), applied=Applied(NOW, "held", "rolled back")), "apply is held"),
        (replace(status(), lag_ms=2500.0), "2500 ms late"),
    ],
)
def test_what_is_meant_so_is_told_and_does_not_fail(found: Status, words: str) -> None:
    assert wrong(found) == []
    assert any(words in text for text in noted(found)), noted(found)


def test_without_a_channel_a_backup_knows_that_somebody_holds_it() -> None:
    blind = alone(status(own=2))
    assert wrong(blind) == [] and "held by a node that is not heard" in printed(blind)
    faulty = replace(blind, report=report(2, up=False))
    assert "nobody that is heard holds 10.0.0.100" in wrong(faulty)


def test_a_frozen_haproxy_is_said_to_be_old_news() -> None:
    found = replace(status(), haproxy=HaproxyFacts("frozen", 1, {}, status().haproxy.servers))
    assert "it does not answer, this is old" in printed(found)


def test_ten_thousand_servers_show_the_few_that_matter() -> None:
    found = status()
    many = tuple(replace(server("etcd", 1), name=f"s{n}") for n in range(10_000))
    found = replace(found, haproxy=replace(found.haproxy, servers=(*many, server("etcd", 3, "DOWN"))))
    text = printed(found)
    assert len(text.splitlines()) < 40 and "10000 more" in text and "etcd/cp3" in text
    down = tuple(replace(each, status="DOWN") for each in many)
    assert "and 9995 more" in wrong(replace(found, haproxy=replace(found.haproxy, servers=down)))[0]


def test_old_workers_and_the_last_apply() -> None:
    text = printed(replace(status(), old_workers=(OldWorker(812, 75.0, 3),)))
    assert "old haproxy workers: 812 (1 min, 3 sessions)" in text
    assert "last apply 10 min ago, applied: haproxy: reloaded in 61 ms" in text


def explained(found: Status, *failures: str, events: tuple[Event, ...] = ()) -> str:
    outcomes = [after(cluster(), found, failure) for failure in failures]
    return "\n".join(lines(explain(found, events, outcomes, NOW), NOW))


def test_why_it_holds_the_vip_with_every_term_in_a_sentence() -> None:
    text = explained(status())
    assert (
        "cp1 holds 10.0.0.100: no node that is heard has more than its 254 (cp2 has 177, cp3 has 166)" in text
    )
    for words in ("order", "node 1 of 3 in lbha.toml", "every service has a live server", "it holds the VIP"):
        assert words in text
    assert "has not moved here" in text


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (status(own=2), "cp1 has it with 254, cp2 has 177"),
        (replace(status(own=2), report=report(2, up=False)), "cannot hold 10.0.0.100, it is in FAULT"),
        (replace(status(own=2), report=report(2, drained=True)), "cp2 has 12 and is drained"),
        (replace(status(own=2), report=replace(report(2), vrrp=VrrpFacts(problem="down"))), "cannot hold"),
        (replace(status(own=2), report=replace(report(2), vrrp=VrrpFacts("FAULT"))), "keepalived is in FAULT"),
        (alone(status(own=2)), "but not whose"),
        (alone(status()), f"no node that is heard has more than its 254 ({OFF})"),
        (
            with_report(status(), report(1, holds=True, serving=False)),
            "for now: cp2's priority 177 beats its 122",
        ),
        (with_report(status(own=2), report(1, holds=True, serving=False)), "cp2 does not hold 10.0.0.100 yet"),
        (with_report(status(), report(1, holds=True, up=False)), "still holds 10.0.0.100, and must not"),
        (status(1), "no other node is heard"),
    ],
)
def test_why_or_why_not(found: Status, words: str) -> None:
    assert words in explained(found), explained(found)


def test_what_moved_it_last_and_what_would() -> None:
    events = (
        Event(NOW - 7200, "vip-gained", "cp1 holds 10.0.0.100 now: cp2 held it and is drained", "drain"),
        Event(NOW - 60, "applied", "haproxy: reloaded"),
    )
    text = explained(status(), "cp1", "cp1/haproxy", "cp3/etcd", events=events)
    assert "last move 2 h ago (" in text and "cp2 held it and is drained" in text
    assert "if cp1 dies now:" in text and "cp2 holds the VIP after 0.63 s at most" in text, text
    assert "cp2 holds the VIP after 131 ms at most" in text
    assert "if cp3/etcd dies now:\n  nothing moves" in text and "leaves its pool: etcd/cp3" in text


def test_what_is_not_known_is_said() -> None:
    text = explained(alone(status()), "cp1")
    assert "nobody is known to take it" in text and "nothing is known of cp2, cp3" in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0.0 s"), (0.44, "0.4 s"), (37.2, "37 s"), (125, "2 min"), (9e5, "10 d")]
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        (ClientFacts(), "connections through the VIP: not known yet"),
        (ClientFacts(812, None), "connections through the VIP: 812, told to the others"),
        (ClientFacts(812, "cp2"), "connections through the VIP: 812 of cp2, told if the VIP comes here"),
        (ClientFacts(65536, "cp2", 9), "65536 of cp2, told if the VIP comes here; 9 more are not told"),
    ],
)
def test_whether_idle_clients_are_told(clients: ClientFacts, said: str) -> None:
    assert said in printed(replace(status(), clients=clients))


def test_without_a_channel_idle_clients_are_not_told() -> None:
    assert "idle clients of a holder that dies are not told" in printed(alone(status()))
