"""Split brain: two nodes hold the VIP, or one holds it that nobody can use. Who gives it up? Pure.

VRRP settles who holds the VIP as long as everybody hears everybody. Where that is not so, three rules decide:

- Two holders that hear each other's *agents*: the lower one, by priority, then address, gives the VIP up until
  the other no longer holds it, or until the other's adverts arrive: then this node can be its backup.
- A holder that hears the adverts of another one, whose agent is silent: the other would have yielded, or this
  node's keepalived would have, if both were heard. So the other does not hear this node and cannot know; the
  holder gives the VIP up, whatever their ranks, and is a backup again as soon as it is gone from here.
- A holder that reaches no other node and sees no live server of some service cannot serve; the other side
  perhaps can. It gives the VIP up until it reaches a node, or can serve. Where other nodes are reached that are
  no better off, it stays: fail static.

Nothing is given up on old news: a rival must have been heard again and again while this node held the VIP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

REPORTED = 0.9
ADVERTISED = 1.2
"""Seconds from the first to the last sign of a rival, by its reports (one a second: two of them) or by its
adverts, before somebody yields. A takeover in order takes one advert to be settled."""

ALONE = 2.0
"""Seconds without a sign of life from any other node until this one counts as alone."""

LEAST = 1.0
"""Seconds that the VIP is given up for at least, after it has left."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another node that holds the VIP: heard last at `heard` (s), with its rank (`lbha.vrrp.rank`); by its own
    `report`, or by adverts alone. `adverts`: they arrive here."""

    node: str
    heard: float
    rank: tuple[int, int]
    report: bool
    adverts: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The VIP is given up: why, since when it has been gone from here (s; None: not yet), and for whom."""

    why: str
    gone: float | None = None
    rival: str | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """What is remembered: when each rival was heard first and last while this node held the VIP; a release."""

    rivals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    release: Release | None = None

    @property
    def proven(self) -> tuple[str, ...]:
        """The rivals that were heard again and again."""
        return tuple(name for name, (first, last) in self.rivals.items() if last - first >= REPORTED)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is looked at. `alone`: no other node is reached; `serving`: every service has a live server."""

    now: float
    holds: bool
    rank: tuple[int, int]
    rivals: Sequence[Rival]
    alone: bool
    serving: bool


def step(before: Split, seen: Seen) -> Split:
    """One look."""
    if before.release is not None:
        return Split({}, _kept(before.release, seen))
    if not seen.holds:
        return Split()
    heard = {
        rival.node: (before.rivals[rival.node][0] if rival.node in before.rivals else rival.heard, rival.heard)
        for rival in seen.rivals
    }
    return Split(heard, _release(heard, seen))


def _release(heard: Mapping[str, tuple[float, float]], seen: Seen) -> Release | None:
    for rival in seen.rivals:
        first, last = heard[rival.node]
        lasted = last - first
        if rival.report and lasted >= REPORTED and rival.rank > seen.rank:
            why = f"split brain: {rival.node} holds the VIP too, and ranks higher"
            return Release(why, rival=rival.node)
        if not rival.report and lasted >= ADVERTISED:
            why = f"split brain: {rival.node} advertises the VIP too, and does not hear this node"
            return Release(why, rival=rival.node)
    if seen.alone and not seen.serving:
        return Release("cut off: no other node is reached, and there is no live server for some service")
    return None


def _kept(release: Release, seen: Seen) -> Release | None:
    """What is left of it; None when it is over."""
    if seen.holds:
        return replace(release, gone=None)
    gone = seen.now if release.gone is None else release.gone
    if release.rival is None:
        reason = seen.alone and not seen.serving
    else:
        reason = any(_still(release, rival) for rival in seen.rivals)
    return replace(release, gone=gone) if reason or seen.now - gone < LEAST else None


def _still(release: Release, rival: Rival) -> bool:
    """Without the release, this node would hold the VIP beside `rival` again: keepalived hears no advert."""
    return rival.report and rival.node == release.rival and not rival.adverts
