"""Who holds the VIP: the election that VRRP makes of the nodes' states. Pure.

`lbha.forecast.proof` goes through every set of failures and proves that the right node wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lbha.priority import Terms


@dataclass(frozen=True, slots=True)
class NodeState:
    """All of a node that an election depends on. `power`: the host and its keepalived run."""

    power: bool = True
    haproxy: bool = True
    serving: bool = True
    local: bool = True
    drained: bool = False
    quarantined: bool = False
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Election:
    """Every node's effective priority, 0 for one that takes no part, and the index of the one that wins."""

    priorities: tuple[int, ...]
    winner: int | None


def priority(sizes: Terms, index: int, state: NodeState) -> int:
    """The effective priority of the node at `index` of the file; 0 when it is dead or in FAULT."""
    if not (state.power and state.haproxy):
        return 0
    base = sizes.base(index, 0)
    if state.drained or (state.quarantined and not state.holds):
        return base
    score = sizes.local * state.local + sizes.holder * state.holds + sizes.serving * state.serving
    return base + score


def elect(sizes: Terms, states: Sequence[NodeState], addresses: Sequence[int]) -> Election:
    """What VRRP settles on. `addresses` are the nodes' as numbers."""
    priorities = tuple(priority(sizes, index, state) for index, state in enumerate(states))
    holder = next((index for index, state in enumerate(states) if state.holds), None)
    return Election(priorities, winner(priorities, holder, addresses))


def winner(priorities: Sequence[int], holder: int | None, addresses: Sequence[int]) -> int | None:
    """The index of the highest priority above 0; None when there is none.

    Between equals the holder stays, because a backup keeps quiet as long as it hears its own priority; with no
    holder, the higher address wins (RFC 9568, 6.4).
    """
    best = max(priorities, default=0)
    if best <= 0:
        return None
    equal = [index for index, value in enumerate(priorities) if value == best]
    return holder if holder in equal else max(equal, key=lambda index: addresses[index])


def skew(value: int, advert_interval: float) -> float:
    """Seconds that a node of that priority waits before it takes over (RFC 9568, 6.1)."""
    return (256 - value) / 256 * advert_interval
