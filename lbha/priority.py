"""VRRP priorities, derived from the number of nodes and services rather than chosen by hand. Pure.

In script mode keepalived adds three terms (design: "Priority"):

- order:  first node of the file most, one step a node; decides between equals.
- local:  a service's backend on this very node is healthy; one more of them outweighs any order.
- holder: this node holds the VIP; outweighs order and local of anyone else, so that a preferred or
  recovered node never takes the VIP back needlessly. Absent with `failback = true`, and local with it:
  without a holder term to outweigh it, each sick backend would move the VIP, and move it back.

A weight smaller than the gap between two base priorities never moves a VIP, the classic mistake of
hand-written recipes; here every inequality holds by construction and is tested by enumeration.
"""

from __future__ import annotations

from dataclasses import dataclass

HIGHEST = 254
"""keepalived clamps effective priorities to 1..254; 255 is the address owner's (RFC 9568, 5.2.4)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The sizes of the terms, the same on every node of a cluster."""

    nodes: int
    step: int
    local: int
    holder: int
    floor: int

    def base(self, index: int, local_services: int) -> int:
        """Base priority of the node at `index` of the file with `local_services` backends of its own.

        The local terms stand in the base and a failing check takes one away, so that a node counts as
        healthy until a check has said otherwise.
        """
        return self.floor + (self.nodes - 1 - index) * self.step + local_services * self.local


def terms(nodes: int, services: int, *, failback: bool) -> Terms:
    """Sizes for a cluster of `nodes` (1..32) and `services`, with steps as wide as 1..254 allows.

    Width matters: two candidates leave their waits step/256 × advert interval apart (skew, RFC 9568, 6.1).
    Where 254 priorities are too few for the local term, it is left out (0).
    """
    room = HIGHEST - 1
    for counted in (0,) if failback else (services, 0):
        order, local = nodes - 1, counted * nodes
        holder = 0 if failback else order + local + 1
        step = room // max(1, order + local + holder)
        if step:
            break
    total = (order + local + holder) * step
    return Terms(
        nodes=nodes,
        step=step,
        local=nodes * step if counted else 0,
        holder=holder * step,
        floor=HIGHEST - total,
    )
