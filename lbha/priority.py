"""VRRP priorities, derived from the number of nodes and services rather than chosen by hand. Pure.

The terms (design: "Priority"), each larger than all above it together:

- order:   first node of the file most, one step a node; decides between equals.
- local:   a service's backend on this very node is healthy; outweighs any order. In script mode once for
  each service, in agent mode once for all of them together.
- holder:  this node holds the VIP; outweighs order and local of anyone else, so that a preferred or
  recovered node never takes the VIP back needlessly. Absent with `failback = true`, and local with it:
  without a holder term to outweigh it, each sick backend would move the VIP, and move it back.
- serving: this node's haproxy sees a live server for every service; outweighs all others: a holder that
  cannot serve yields. Only the agent knows it.

In script mode keepalived adds them up itself, by weights; in agent mode the agent writes the sum of all but
order, the score, which keepalived adds to its base.

A weight smaller than the gap between two base priorities never moves a VIP, the classic mistake of
hand-written recipes; here every inequality holds by construction and is tested by enumeration.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbha.facts import Decision, Observation, Term
from lbha.health import Health

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
    serving: int = 0

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


def agent_terms(nodes: int, *, failback: bool) -> Terms:
    """Sizes for a cluster of `nodes` (1..32) whose agents decide; three nodes: step 11, with failback 50."""
    room = HIGHEST - 1
    for local in (0,) if failback else (nodes, 0):
        order = nodes - 1
        holder = 0 if failback else order + local + 1
        serving = order + local + holder + 1
        step = room // (order + local + holder + serving)
        if step:
            break
    total = (order + local + holder + serving) * step
    return Terms(
        nodes=nodes,
        step=step,
        local=local * step,
        holder=holder * step,
        floor=HIGHEST - total,
        serving=serving * step,
    )


def decide(
    sizes: Terms, index: int, seen: Observation, health: Health, released: str | None = None
) -> Decision:
    """FAULT or not, and the score, of the node at `index` of the file. `released`: why the VIP must not be here
    although haproxy can serve (`lbha.split`)."""
    idle = seen.drained or (seen.quarantined and not seen.holds_vip)
    excuse = "drained" if seen.drained else "only just booted"
    sick = sorted(service for service, settled in health.local.items() if not settled.value)
    serving = health.serving.value
    terms = (
        Term("order", sizes.base(index, 0), True, f"node {index + 1} of {sizes.nodes} in lbha.toml"),
        Term(
            "local",
            sizes.local,
            bool(health.local) and not sick and not idle,
            excuse
            if idle
            else f"down on this node: {', '.join(sick)}"
            if sick
            else "every service is live on this node"
            if health.local
            else "no service runs on this node",
        ),
        Term(
            "holder",
            sizes.holder,
            seen.holds_vip and not idle,
            excuse if idle else "it holds the VIP" if seen.holds_vip else "it does not hold the VIP",
        ),
        Term(
            "serving",
            sizes.serving,
            serving and not idle,
            excuse if idle else health.serving_why,
        ),
    )
    up = health.haproxy.value and released is None
    return Decision(
        up=up,
        score=sum(term.points for term in terms[1:]),
        base=terms[0].points,
        terms=terms,
        why=excuse if up and idle else "it can serve" if up else _why_not(health, released),
    )


def _why_not(health: Health, released: str | None) -> str:
    return released if released is not None and health.haproxy.value else health.haproxy_why
