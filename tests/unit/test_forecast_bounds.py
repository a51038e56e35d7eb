"""The computed worst case of every fault: where it comes from, and a drill's figures beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statuses import cluster, status

from lbha.config import parse
from lbha.errors import LbhaError
from lbha.forecast.bounds import Bound, Stage, bounds
from lbha.forecast.measured import Run, beside, load
from lbha.forecast.waits import longest_skew, observed, removal
from lbha.lab import drill
from lbha.lab.faults import KINDS
from lbha.model import Cluster, Mode, Node, Pool
from lbha.outcome import after
from lbha.render import render
from lbha.timing import CONNECT, DRILL_REQUEST


def of(cluster: Cluster, fault: str, mode: Mode = Mode.AGENT) -> Bound:
    return next(bound for bound in bounds(cluster, mode) if bound.fault == fault)


def test_every_fault_of_the_drill_has_a_bound(smallest: str) -> None:
    prod = parse(smallest)
    assert [bound.fault for bound in bounds(prod, Mode.AGENT)] == list(KINDS)
    agents = {"agent-kill", "agent-freeze", "agent-restart", "drain"}
    assert [bound.fault for bound in bounds(prod, Mode.SCRIPT)] == [
        kind for kind in KINDS if kind not in agents
    ]


def test_what_is_not_there_does_not_break() -> None:
    plain = parse(
        '[cluster]\nname = "x"\nvip = "10.0.0.9"\n[nodes]\na = "10.0.0.1"\n'
        '[services.web]\nkind = "tcp"\nport = 80\nbackends = ["10.1.0.1"]\n'
    )
    names = [bound.fault for bound in bounds(plain, Mode.AGENT)]
    assert not [name for name in names if name.startswith(("apiserver", "etcd", "partition"))]
    assert of(plain, "power-off").clients is None and not of(plain, "power-off").moves
    assert of(plain, "drain").clients == 0.0, "a node alone keeps the VIP"


def test_the_times_of_three_nodes(smallest: str) -> None:
    """By hand: cp2 is next with 12 + 33 + 132 = 177 points, in script mode with 16 + 14 + 2 × 42 = 114."""
    prod = parse(smallest)
    skews = {Mode.AGENT: 79 / 256 * 0.1, Mode.SCRIPT: 142 / 256 * 0.1}
    for mode, skew in skews.items():
        assert longest_skew(prod, mode) == (
            pytest.approx(skew),
            f"(256 - {256 - skew * 2560:.0f}) / 256 × 0.1 s, cp2 next",
        )
        assert of(prod, "keepalived-stop", mode).clients == pytest.approx(skew)
        assert of(prod, "power-off", mode).vip == pytest.approx(0.6 + skew)
        assert of(prod, "power-off", mode).clients == pytest.approx(0.6 + skew + 0.7)
        assert of(prod, "keepalived-kill", mode).clients == 0.0
        assert of(prod, "apiserver-error", mode).clients == pytest.approx(0.7)
        assert of(prod, "apiserver-freeze", mode).clients == pytest.approx(2.2)
    assert of(prod, "haproxy-kill").clients == pytest.approx(0.1 + skews[Mode.AGENT])
    assert of(prod, "haproxy-freeze").clients == pytest.approx(0.45 + skews[Mode.AGENT])
    assert of(prod, "haproxy-kill", Mode.SCRIPT).clients == pytest.approx(2.9 + skews[Mode.SCRIPT])
    assert of(prod, "partition-one-way", Mode.SCRIPT).clients is None
    fast = replace(prod, failover=replace(prod.failover, down_timer_adverts=3))
    assert of(fast, "link-down").vip == pytest.approx(0.3 + skews[Mode.AGENT])


def test_servers_that_lie_elsewhere_do_not_die_with_a_node(smallest: str) -> None:
    away = parse(smallest.replace('"kube-apiserver"', '"kube-apiserver"\nbackends = ["10.9.0.1"]'))
    assert of(away, "power-off").clients == of(away, "power-off").vip
    assert of(away, "power-off").of(Stage.SERVERS) == 0.0


def test_explain_foretells_the_same() -> None:
    """`lbha explain --if-dies` and `lbha plan` compute from one source."""
    prod = cluster()
    for dies, fault in (
        ("cp1", "power-off"), ("cp1/haproxy", "haproxy-kill"), ("cp1/keepalived", "keepalived-kill"),
    ):  # fmt: skip
        assert after(prod, status(), dies).seconds == pytest.approx(of(prod, fault).vip)


@settings(deadline=None)
@given(
    mode=st.sampled_from(Mode),
    nodes=st.integers(2, 12),
    failback=st.booleans(),
    interval=st.integers(1, 4094),
    more=st.integers(1, 1000),
    down=st.integers(1, 99),
)
def test_no_bound_shrinks_when_adverts_are_rarer(
    mode: Mode, nodes: int, failback: bool, interval: int, more: int, down: int
) -> None:
    base = cluster()
    base = replace(base, nodes=tuple(Node(f"n{i}", (f"10.0.0.{i}",)) for i in range(1, nodes + 1)))

    def times(interval: int, down: int) -> list[tuple[float, float]]:
        failover = replace(
            base.failover, advert_interval=interval / 100, down_timer_adverts=down, failback=failback
        )
        found = bounds(replace(base, failover=failover), mode)
        return [(bound.vip or 0.0, bound.clients or 0.0) for bound in found]

    before = times(interval, down)
    for later in (times(min(4095, interval + more), down), times(interval, down + 1)):
        for (vip, clients), (later_vip, later_clients) in zip(before, later, strict=True):
            assert later_vip >= vip - 1e-9 and later_clients >= clients - 1e-9


@settings(deadline=None)
@given(mode=st.sampled_from(Mode), fall=st.integers(1, 10), interval=st.integers(1, 50))
def test_no_bound_shrinks_when_checks_are_more_patient(mode: Mode, fall: int, interval: int) -> None:
    base = cluster()

    def times(fall: int, interval: float) -> list[float]:
        service = observed(base)
        check = replace(service.check, fall=fall, interval=interval / 10)
        services = tuple(replace(s, check=check) if s == service else s for s in base.services)
        health = replace(base.health, fall=fall)
        return [bound.clients or 0.0 for bound in bounds(replace(base, services=services, health=health), mode)]

    before = times(fall, interval)
    for later in (times(fall + 1, interval), times(fall, interval + 1)):
        assert all(more >= less - 1e-9 for less, more in zip(before, later, strict=True))


def test_the_templates_say_what_is_computed_with(
    smallest: str, own_nodes: Callable[[Cluster], dict[str, Pool]]
) -> None:
    prod = parse(smallest)
    files = render(prod, prod.nodes[0], own_nodes(prod), "eth0").files
    assert f"timeout connect {CONNECT * 1000:.0f}ms\n" in files["haproxy.cfg"]
    assert "observe layer4 error-limit 1 on-error mark-down" in files["haproxy.cfg"]
    assert "option redispatch 1\n" in files["haproxy.cfg"]
    check = observed(prod).check
    assert (
        f"check inter {check.interval * 1000:.0f}ms fastinter {check.fast_interval * 1000:.0f}ms"
        in files["haproxy.cfg"]
    )
    assert "  interval 1\n  timeout 1\n  rise 2\n  fall 2\n" in files["keepalived.conf"]
    assert removal(check, silent=False)[0] == pytest.approx(check.interval + 2 * check.fast_interval)


def runs(
    *gaps_ms: float, fault: str = "power-off", lag_ms: float = 5.0, recovered: bool = True
) -> tuple[Run, ...]:
    return tuple(Run(fault, "lbha-agent", gap, lag_ms, recovered) for gap in gaps_ms)


def test_a_drills_figures_beside(smallest: str) -> None:
    bound = of(parse(smallest), "power-off")
    assert bound.clients is not None
    limit_ms = (bound.clients + 2 * DRILL_REQUEST) * 1000 + 5.0
    found = beside(bound, runs(600, 620, limit_ms - 1))
    assert found and (found.runs, found.median, found.above) == (3, 0.62, 0)
    assert found.allowed == pytest.approx(limit_ms / 1000)
    above = beside(bound, runs(600, limit_ms + 1))
    assert above and above.above == 1
    lost = beside(bound, runs(600, recovered=False))
    assert lost and lost.above == 1, "clients that were never served again"
    assert beside(bound, runs(600, fault="drain")) is None
    assert beside(replace(bound, mode=Mode.SCRIPT), runs(600)) is None
    no_bound = beside(replace(bound, clients=None), runs(90_000))
    assert no_bound and (no_bound.allowed, no_bound.above) == (None, 0)


def test_it_reads_what_the_drill_writes(tmp_path: Path) -> None:
    assert {each.name for each in msgspec.structs.fields(Run)} <= {each.name for each in fields(drill.Run)}
    path = tmp_path / "runs.json"
    path.write_bytes(msgspec.json.encode([runs(600)[0]]))
    assert load(path) == runs(600)
    for content in (b"[]", b"{}", b"", b'[{"fault": 1}]'):
        path.write_bytes(content)
        with pytest.raises(LbhaError, match=r"--drill .*runs\.json: .*lbha drill --json FILE"):
            load(path)
    with pytest.raises(LbhaError, match="No such file"):
        load(tmp_path / "absent")
