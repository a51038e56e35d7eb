"""From what clients saw to figures. Pure.

A gap is what a client feels: the longest time between the *starts* of two successful attempts that follow each
other, where the later one started after the injection. With an attempt each 20 ms a service that never
failed shows about 20 ms. When no attempt succeeds any more, the gap runs to the end of the load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lbha.lab.records import Attempt, Watch


@dataclass(frozen=True, slots=True)
class Figures:
    """How attempts fared that were under way at the injection or started after it.

    `failed` were started when the fault was done. `cut` failed as well, but were started before it: they were
    in the hands of what died, and no balancer can save those.
    `last_failure_ms` counts from the injection to the start of the last of `failed` (None: none did);
    `slowest_ms` is the longest that a successful one took; `errors` how many failed for which reason.
    """

    count: int
    failed: int
    cut: int
    gap_ms: float
    last_failure_ms: float | None
    slowest_ms: float
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class WatchFigures:
    """How watches fared. `dead` of them lost their connection, `unaware` of those had not learnt it at the end.

    `recovery_ms` counts from the injection until the last of the dead was connected again; 0 when none died,
    None when one never was.
    """

    dead: int
    unaware: int
    recovery_ms: float | None


@dataclass(frozen=True, slots=True)
class Holders:
    """Who held the VIP from `at` (s) on."""

    at: float
    names: tuple[str, ...]


def figures(attempts: Sequence[Attempt], injected: float, ended: float, done: float | None = None) -> Figures:
    """All in s: `injected` is when the injection began and `done` when it was over (the same when not given),
    `ended` when the last attempt was started."""
    seen = [attempt for attempt in attempts if attempt.end >= injected]
    unserved = [attempt for attempt in seen if attempt.error is not None]
    failed = [attempt for attempt in unserved if attempt.start >= (done or injected)]
    last = max((attempt.start for attempt in failed), default=None)
    slowest = max((attempt.end - attempt.start for attempt in seen if attempt.error is None), default=0.0)
    return Figures(
        count=len(seen),
        failed=len(failed),
        cut=len(unserved) - len(failed),
        gap_ms=_ms(gap(attempts, injected, ended)),
        last_failure_ms=None if last is None else _ms(max(0.0, last - injected)),
        slowest_ms=_ms(slowest),
        errors=dict(Counter(attempt.error for attempt in unserved if attempt.error is not None)),
    )


def gap(attempts: Sequence[Attempt], injected: float, ended: float) -> float:
    """The longest gap (s), as above."""
    good = sorted(attempt.start for attempt in attempts if attempt.error is None)
    before = max((start for start in good if start <= injected), default=injected)
    points = [before, *(start for start in good if start > injected), max(ended, injected)]
    return max(0.0, max(later - earlier for earlier, later in pairwise(points)))


def steady_for(attempts: Sequence[Attempt], injected: float, now: float, timeout: float) -> float:
    """For how long (s) every attempt has succeeded; 0 while none that could have ended by now did so well.

    `timeout` (s) is how long an attempt may take before it counts as failed.
    """
    recent = [attempt for attempt in attempts if attempt.error is None and attempt.start >= now - 1.5 * timeout]
    if not recent:
        return 0.0
    last = max((attempt.end for attempt in attempts if attempt.error is not None), default=injected)
    return max(0.0, now - max(last, injected))


def watch_figures(events: Sequence[Watch], unaware: int, injected: float) -> WatchFigures:
    """`unaware` is what the client found by asking at the end."""
    died = {event.index for event in events if not event.connected and event.at >= injected}
    latest = {event.index: event for event in sorted(events, key=lambda event: event.at)}
    back = [latest[index].at for index in died if latest[index].connected]
    recovered = unaware == 0 and len(back) == len(died)
    return WatchFigures(
        dead=len(died) + unaware,
        unaware=unaware,
        recovery_ms=_ms(max((at - injected for at in back), default=0.0)) if recovered else None,
    )


def holder_changes(samples: Sequence[Holders], injected: float) -> list[tuple[float, list[str]]]:
    """Who held the VIP at the injection (0 ms) and each change after it, in ms from it."""
    before = [sample for sample in samples if sample.at <= injected]
    changes = [(0.0, list(before[-1].names if before else ()))]
    for sample in samples:
        if sample.at > injected and list(sample.names) != changes[-1][1]:
            changes.append((_ms(sample.at - injected), list(sample.names)))
    return changes


def moved(changes: Sequence[tuple[float, list[str]]]) -> bool:
    """Whether, after the injection, anybody held the VIP who did not before it."""
    return any(set(names) - set(changes[0][1]) for _, names in changes)


def two_holders_ms(changes: Sequence[tuple[float, list[str]]], window_ms: float) -> float:
    """For how long (ms) more than one node held the VIP, from the injection to the end of the window."""
    ends = [at for at, _ in changes[1:]] + [window_ms]
    return round(sum(end - at for (at, names), end in zip(changes, ends, strict=True) if len(names) > 1), 1)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
