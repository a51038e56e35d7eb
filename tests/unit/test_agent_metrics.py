"""/metrics: parsed by Prometheus' own parser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agent_stand_in import StandIn
from prometheus_client.parser import text_string_to_metric_families

from lbha.agent.metrics import Counters, exposition
from lbha.facts import ClientFacts, Decision, HaproxyFacts, Status

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(status: Status, counters: Counters) -> Samples:
    text = exposition(status, counters).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("lbha_") and family.documentation and family.type != "unknown"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_the_state() -> None:
    got = parsed(StandIn().status(), Counters())
    expected = {
        ("lbha_vip_held", ()): 1,
        ("lbha_priority_effective", ()): 215,
        ("lbha_priority_term", (("term", "holder"),)): 69,
        ("lbha_up", ()): 1,
        ("lbha_score", ()): 115,
        ("lbha_drained", ()): 1,
        ("lbha_loop_lag_seconds", ()): 0.0015,
        ("lbha_old_workers", ()): 1,
        ("lbha_peer_up", (("node", "cp2"),)): 1,
        ("lbha_peer_up", (("node", "cp3"),)): 0,
        ("lbha_etcd_quorum", (("service", "etcd"),)): 1,
        ("lbha_backend_live", (("service", "etcd"),)): 1,
        ("lbha_server_up", (("server", "cp1"), ("service", "etcd"))): 1,
        ("lbha_server_up", (("server", 'c"p\\2'), ("service", "etcd"))): 0,
        ("lbha_discovery_age_seconds", (("service", "etcd"),)): 12.5,
        ("lbha_check_seconds_count", ()): 0,
    }
    assert {key: got[key] for key in expected} == expected
    # What is not known has no value, rather than a wrong one.
    assert ("lbha_etcd_quorum", (("service", "other"),)) not in got
    assert ("lbha_discovery_age_seconds", (("service", "new"),)) not in got


def test_a_fault_and_no_haproxy() -> None:
    status = StandIn().status()
    fault = Decision(False, 0, 100, (), "haproxy does not answer")
    report = replace(status.report, decision=fault, holds_vip=False)
    got = parsed(replace(status, report=report, haproxy=HaproxyFacts(), drain=None), Counters())
    assert [got[f"lbha_{name}", ()] for name in ("up", "priority_effective", "vip_held", "drained")] == [0] * 4


def test_connections_are_told_where_they_are_known() -> None:
    status = StandIn().status()
    assert ("lbha_vip_connections", ()) not in parsed(status, Counters())
    told = parsed(replace(status, clients=ClientFacts(12, "cp2", 3)), Counters())
    assert told["lbha_vip_connections", ()] == 12


def test_what_was_counted() -> None:
    counters = Counters()
    counters.transition("MASTER", "haproxy")
    counters.transition("MASTER", "haproxy")
    counters.transition("BACKUP", "drain")
    counters.applied("applied")
    counters.event("vip")
    counters.decided()
    counters.recovered("handover", 7)
    counters.recovered("left", 2)
    counters.recovered("tickle", 30)
    for seconds in (0.0005, 0.001, 0.0011, 0.3, 7.0):
        counters.checked(seconds)
    got = parsed(StandIn().status(), counters)
    assert got["lbha_transitions_total", (("cause", "haproxy"), ("to", "MASTER"))] == 2
    assert got["lbha_transitions_total", (("cause", "drain"), ("to", "BACKUP"))] == 1
    assert got["lbha_apply_total", (("result", "applied"),)] == 1
    assert got["lbha_decisions_total", ()] == 1
    assert got["lbha_events_total", (("kind", "vip"),)] == 1
    assert got["lbha_sessions_ended_total", (("cause", "handover"),)] == 7
    assert got["lbha_sessions_ended_total", (("cause", "left"),)] == 2
    assert got["lbha_tickles_total", ()] == 30
    buckets = {labels[0][1]: n for (name, labels), n in got.items() if name == "lbha_check_seconds_bucket"}
    assert [buckets[each] for each in ("0.001", "0.0025", "0.25", "0.5", "1.0", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert got["lbha_check_seconds_count", ()] == 5
    assert got["lbha_check_seconds_sum", ()] == pytest.approx(7.3026)
