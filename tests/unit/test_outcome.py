"""What would happen if something died: the right successor, the right bound, and what else goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from statuses import NOW, alone, cluster, report, server, silent, status, with_report, with_servers

from lbha.election import skew
from lbha.errors import ConfigError
from lbha.outcome import after
from lbha.timing import CONNECT, HAPROXY_INTERVAL


def waits(n: int) -> float:
    """The skew of cp`n` as a healthy backup, in s."""
    return skew(report(n).decision.priority, 0.1)


def test_a_dead_holder_falls_silent_and_its_servers_leave() -> None:
    found = after(cluster(), status(), "cp1")
    assert (found.before, found.holder) == ("cp1", "cp2")
    assert found.seconds == pytest.approx(6 * 0.1 + waits(2))
    assert found.lost == ("apiserver/cp1", "etcd/cp1")
    assert (found.emptied, found.quorum_lost, found.not_heard) == ((), (), ())
    assert "6 × 0.1 s" in found.how and "skew" in found.how


def test_a_dead_haproxy_is_fault_and_costs_a_skew() -> None:
    found = after(cluster(), status(), "cp1/haproxy")
    assert found.holder == "cp2" and found.lost == ()
    assert found.seconds == pytest.approx(HAPROXY_INTERVAL + waits(2))
    assert "FAULT" in found.how


def test_a_killed_keepalived_is_silent_and_takes_no_server_with_it() -> None:
    found = after(cluster(), status(), "cp1/keepalived")
    assert (found.holder, found.lost) == ("cp2", ())
    assert found.seconds == pytest.approx(0.6 + waits(2))


@pytest.mark.parametrize(
    "failure", ["cp1/agent", "cp2/agent", "cp2/haproxy", "cp3/keepalived", "cp2", "cp1/etcd"]
)
def test_nothing_moves(failure: str) -> None:
    found = after(cluster(), status(), failure)
    assert (found.before, found.holder, found.seconds) == ("cp1", "cp1", 0.0)
    assert found.how.startswith("nothing moves")


def test_a_local_backend_leaves_its_pool_and_the_holder_stays() -> None:
    found = after(cluster(), status(), "cp1/etcd")
    assert found.lost == ("etcd/cp1",) and found.holder == "cp1"


@pytest.mark.parametrize("failback", [True, False])
@pytest.mark.parametrize("nodes", range(1, 8))
def test_a_local_backend_never_moves_the_vip(nodes: int, failback: bool) -> None:
    for holder in range(1, nodes + 1):
        sick = with_report(
            status(nodes, holder=holder, failback=failback),
            report(holder, nodes, holds=True, local=False, failback=failback),
        )
        if failback and holder > 1:
            continue  # The VIP is on its way to the first node in any case.
        found = after(cluster(nodes, failback=failback), sick, f"cp{holder}/etcd")
        assert (found.holder, found.seconds) == (f"cp{holder}", 0.0)


def test_the_successor_is_the_one_that_can() -> None:
    sick = with_report(status(), report(2, local=False))
    assert after(cluster(), sick, "cp1").holder == "cp3"
    drained = with_report(status(), report(2, drained=True))
    assert after(cluster(), drained, "cp1").holder == "cp3"
    fault = with_report(status(), report(2, up=False))
    assert after(cluster(), fault, "cp1").holder == "cp3"
    stopped = report(2)
    stopped = replace(stopped, vrrp=replace(stopped.vrrp, problem="keepalived is down"))
    assert after(cluster(), with_report(status(), stopped), "cp1").holder == "cp3"


def test_it_is_told_as_well_by_a_node_that_does_not_hold_the_vip() -> None:
    found = after(cluster(), status(own=3), "cp1")
    assert (found.before, found.holder) == ("cp1", "cp2")


def test_a_node_that_is_not_heard_is_no_candidate_and_is_named() -> None:
    found = after(cluster(), silent(status(), "cp2"), "cp1/haproxy")
    assert (found.holder, found.not_heard) == ("cp3", ("cp2",))


def test_without_a_channel_nobody_is_known_to_take_it() -> None:
    found = after(cluster(), alone(status()), "cp1")
    assert (found.before, found.holder, found.seconds) == ("cp1", None, None)
    assert found.not_heard == ("cp2", "cp3")
    elsewhere = alone(status(own=2))
    assert after(cluster(), elsewhere, "cp1").seconds is None
    assert after(cluster(), elsewhere, "cp2").seconds == 0.0


def test_the_last_server_of_a_pool_moves_nothing_because_it_is_gone_for_all() -> None:
    down = (server("etcd", n, "DOWN") for n in (2, 3))
    found = after(cluster(), with_servers(status(), *down), "cp1/etcd")
    assert (found.emptied, found.holder, found.seconds) == (("etcd",), "cp1", 0.0)


def test_with_failback_a_pool_that_empties_makes_all_nodes_equal_again() -> None:
    """cp2 holds it because cp1's haproxy sees no etcd; then cp2's sees none either."""
    found = with_report(status(own=2, holder=2, failback=True), report(1, serving=False, failback=True))
    found = with_servers(found, *(server("etcd", n, "DOWN") for n in (1, 2)))
    here = cluster(failback=True)
    one = after(here, found, "cp3/etcd")
    assert (one.before, one.holder, one.emptied) == ("cp2", "cp1", ("etcd",))
    assert one.seconds is not None and one.seconds > 3.6 and "cp2 serves until then" in one.how
    whole = after(here, found, "cp3")
    assert whole.holder == "cp1" and whole.seconds is not None
    assert whole.seconds - one.seconds == pytest.approx(3 * CONNECT), (
        "a dead host: three checks, as in `lbha plan`"
    )
    assert "cp2 serves until then" in whole.how


def test_a_quorum_that_would_be_lost_is_told() -> None:
    found = status()
    etcd = found.etcd[0]
    members = (*etcd.members[:2], replace(etcd.members[2], leader=False))
    found = replace(found, etcd=(replace(etcd, members=members),))
    assert after(cluster(), found, "cp2").quorum_lost == ("etcd",)
    assert after(cluster(), found, "cp2/etcd").quorum_lost == ("etcd",)
    assert after(cluster(), found, "cp3").quorum_lost == ()
    assert after(cluster(), found, "cp2/haproxy").quorum_lost == ()


def test_one_node_alone() -> None:
    found = after(cluster(1), status(1), "cp1")
    assert (found.holder, found.seconds) == (None, None)


def test_ipv6_nodes_compare_by_number() -> None:
    assert after(cluster(six=True), status(six=True), "cp1").lost == ("apiserver/cp1", "etcd/cp1")


@pytest.mark.parametrize("failure", ["cp9", "", "cp1/", "cp1/kubelet", "/haproxy", "cp1/haproxy/x"])
def test_names_that_are_none_say_what_there_is(failure: str) -> None:
    with pytest.raises(ConfigError, match=r"cp1, cp2, cp3|haproxy, keepalived, agent, apiserver, etcd"):
        after(cluster(), status(), failure)


def test_the_clock_is_the_status_own() -> None:
    old = replace(status(), report=replace(report(1, holds=True), at=NOW + 60))
    assert after(cluster(), old, "cp1").not_heard == ("cp2", "cp3")
