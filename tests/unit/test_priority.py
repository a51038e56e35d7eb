"""Every set of failures elects the right node, for every size of cluster: by enumeration, not by example."""

from __future__ import annotations

from itertools import product

import pytest

from lbha.priority import HIGHEST, Terms, terms

SIZES = [(nodes, services) for nodes in range(1, 8) for services in (1, 2, 3)]


def effective(sizes: Terms, index: int, local: tuple[bool, ...], holder: bool) -> int:
    """What keepalived computes: base, less a weight for each failing local check, plus the holder's."""
    priority = sizes.base(index, len(local)) - sizes.local * local.count(False)
    return priority + (sizes.holder if holder else 0)


@pytest.mark.parametrize(("nodes", "services"), SIZES)
def test_election_prefers_local_health_then_order(nodes: int, services: int) -> None:
    sizes = terms(nodes, services, failback=False)
    for states in product(product((True, False), repeat=services), repeat=min(nodes, 3)):
        local = [*states, *([(True,) * services] * (nodes - len(states)))]
        ranks = [effective(sizes, index, local[index], False) for index in range(nodes)]
        assert len(set(ranks)) == nodes, "two equal priorities make two holders"
        expected = max(range(nodes), key=lambda index: (local[index].count(True), -index))
        assert ranks.index(max(ranks)) == expected


@pytest.mark.parametrize(("nodes", "services"), SIZES)
def test_a_holder_is_never_evicted_by_preference(nodes: int, services: int) -> None:
    sizes = terms(nodes, services, failback=False)
    worst_holder = effective(sizes, nodes - 1, (False,) * services, True)
    for index in range(nodes - 1):
        assert effective(sizes, index, (True,) * services, False) < worst_holder


@pytest.mark.parametrize(("nodes", "services"), SIZES)
def test_with_failback_the_preferred_node_takes_the_vip_back(nodes: int, services: int) -> None:
    sizes = terms(nodes, services, failback=True)
    assert sizes.holder == 0
    for states in product(product((True, False), repeat=services), repeat=min(nodes, 3)):
        local = [*states, *([(True,) * services] * (nodes - len(states)))]
        ranks = [effective(sizes, index, local[index], False) for index in range(nodes)]
        assert ranks == sorted(ranks, reverse=True), "a sick local backend prefers, it never evicts"
        assert len(set(ranks)) == nodes


@pytest.mark.parametrize("nodes", range(1, 33))
@pytest.mark.parametrize("services", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("failback", [True, False])
def test_everything_fits_into_vrrp(nodes: int, services: int, failback: bool) -> None:
    sizes = terms(nodes, services, failback=failback)
    local_services = services if sizes.local else 0
    assert sizes.step >= 1
    assert effective(sizes, 0, (True,) * local_services, True) == HIGHEST
    assert effective(sizes, nodes - 1, (False,) * local_services, False) >= 1
    bases = [sizes.base(index, local_services) for index in range(nodes)]
    assert len(set(bases)) == nodes


def test_three_nodes_stand_well_apart() -> None:
    assert terms(3, 2, failback=False) == Terms(nodes=3, step=14, local=42, holder=126, floor=16)
