"""From what was seen to what is believed: a new fact must last before it counts. Pure; the clock is a number.

Each fact has a `Patience` of its own. What is believed changes only after the contrary was seen without a break
for `rise` or `fall` seconds, so one late answer moves nothing and a flapping server is DOWN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lbha.facts import Observation


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long (s) the contrary must be seen until a fact becomes good (`rise`) or bad (`fall`)."""

    rise: float
    fall: float


HAPROXY = Patience(rise=1.0, fall=0.0)
"""Bad at once: a connection that ended and a socket without a listener are facts, and for a frozen haproxy the
watch has waited already. Good a second later: a haproxy that dies whenever it is started stays in FAULT."""

SERVING = Patience(rise=1.0, fall=3.0)
"""Slower than haproxies differ in what they see: after a leader crash etcd's members answer 503 for about 2 s
(measured), which no two nodes see at the same instant; the open fallback carries the connections meanwhile."""

LOCAL = Patience(rise=5.0, fall=2.0)
"""It only prefers. A node is not preferred again before its backends have been well for a while."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A belief, since when, and since when the contrary is seen (None while it is not). Monotonic seconds."""

    value: bool
    since: float
    contrary: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What is believed of this node: its haproxy can serve at all; every service has a live server (`serving`);
    each service that has a backend on this node is live there (`local`)."""

    haproxy: Settled
    haproxy_why: str
    serving: Settled
    serving_why: str
    local: Mapping[str, Settled]


def settle(before: Settled | None, seen: bool, now: float, patience: Patience) -> Settled:
    """The belief after `seen`. The first look is believed at once."""
    if before is None:
        return Settled(seen, now)
    if seen == before.value:
        return before if before.contrary is None else Settled(before.value, before.since)
    contrary = now if before.contrary is None else before.contrary
    if now - contrary >= (patience.rise if seen else patience.fall):
        return Settled(seen, now)
    return Settled(before.value, before.since, contrary)


def judge(before: Health | None, seen: Observation) -> Health:
    """One step. While haproxy does not answer, nothing new is known of its servers: those beliefs stay."""
    now, facts = seen.at, seen.haproxy
    haproxy = settle(before.haproxy if before else None, facts.problem is None, now, HAPROXY)
    if facts.problem is not None:
        why = facts.problem
        if before is None:
            return Health(haproxy, why, Settled(False, now), why, {})
        return Health(haproxy, why, before.serving, before.serving_why, before.local)
    dead = sorted(service for service, live in facts.live.items() if not live)
    serving = settle(before.serving if before else None, not dead, now, SERVING)
    known = before.local if before else {}
    local = {
        service: settle(known.get(service), live, now, LOCAL) for service, live in sorted(seen.local.items())
    }
    haproxy_why = "haproxy answers" if haproxy.value else "haproxy answers again, but not for long enough"
    if serving.value:
        serving_why = (
            "every service has a live server" if not dead else f"no live server: {', '.join(dead)} (just now)"
        )
    else:
        serving_why = (
            f"no live server: {', '.join(dead)}"
            if dead
            else "every service has a live server again, but not for long enough"
        )
    return Health(haproxy, haproxy_why, serving, serving_why, local)
