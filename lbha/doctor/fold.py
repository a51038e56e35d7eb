"""The same finding in several places is told once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from lbha.doctor.model import Finding

MANY = 4
"""Places that are told by name."""


def folded(found: Iterable[tuple[str, Finding]]) -> Iterator[Finding]:
    """Each place and what is wrong there -> each finding once, its places before its evidence."""
    places: dict[Finding, list[str]] = {}
    for place, finding in found:
        places.setdefault(finding, []).append(place)
    for finding, where in places.items():
        told = ", ".join(where[:MANY]) + (f" and {len(where) - MANY} more" if len(where) > MANY else "")
        yield replace(finding, evidence=f"{told}: {finding.evidence}")
