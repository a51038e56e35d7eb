"""Layouts besides the stacked node: load balancers on nodes of their own, an etcd elsewhere. Needs root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_tools import connects, endpoints, holder, remains

from lbha.lab import drill, lab
from lbha.lab.spec import LabSpec, Roles

LAYOUTS: dict[str, list[Roles]] = {
    "dedicated": [("lb",)] * 2 + [("apiserver", "etcd")] * 3,
    "external": [("lb", "apiserver")] * 2 + [("etcd",)] * 3,
    "members": [("lb", "etcd")] * 3 + [("apiserver",)] * 2,
}


@pytest.fixture(scope="module", params=LAYOUTS)
def running(lab_root: Path, request: pytest.FixtureRequest) -> Iterator[LabSpec]:  # noqa: ARG001 (it ends the lab)
    yield lab.up(request.param, layout=LAYOUTS[request.param])
    lab.down(request.param)
    assert remains(request.param) == []


@pytest.fixture
def spec(running: LabSpec) -> LabSpec:
    lab.wait_healthy(running, 60)
    return running


def test_servers_are_on_other_nodes(spec: LabSpec) -> None:
    for node in spec.having("lb"):
        for service, port in (("apiserver", 6443), ("etcd", 2379)):
            assert endpoints(node, service) == {f"{each.address}:{port}" for each in spec.having(service)}
            local = connects(spec.client_netns, node.address, port)
            assert local == (service in node.roles), f"{service} on {node.name}"


@pytest.mark.parametrize("fault", ["haproxy-kill", "power-off", "etcd-leader-kill"])
def test_clients_survive(spec: LabSpec, fault: str) -> None:
    before = holder(spec)
    run = drill.one(spec, fault, 1, drill.Clients(watches=3, streams=0), 20.0, lambda step: None)
    assert run.recovered and run.acknowledged_writes > 0 and run.lost_writes == 0
    assert run.watches_unaware == 0
    if fault == "etcd-leader-kill":
        assert not run.moved and run.failed == 0
    else:
        assert run.moved and run.node == before.name
        assert holder(spec) != before, "nothing moves back"
        # A request begins each 20 ms: a dead haproxy costs those of one moment, a silent node those of 0.6 s.
        gap_ms, failed = (500, 5) if fault == "haproxy-kill" else (1_500, 75)
        assert run.gap_ms < gap_ms and run.failed <= failed
