"""Moments and spans for people. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def span(seconds: float) -> str:
    """`0.4 s`, `37 s`, `12 min`, `3 h`, `9 d`: one number that says enough."""
    seconds = max(0.0, seconds)
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def bound(seconds: float) -> str:
    """A computed time: `107 ms`, `0.61 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.5 else f"{seconds:.2f} s"


def moment(at: float) -> str:
    """Local time to the second: `2026-05-04 13:37:00`."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def utc(at: float) -> str:
    """The same on every node: `2026-05-04 13:37:00 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(at: float, now: float) -> str:
    """`12 min ago`."""
    return f"{span(now - at)} ago"
