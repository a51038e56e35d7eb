"""All checks at once, each in a thread of its own that nobody waits for longer than the deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TypeVar

from lbha.doctor.model import Check, DoesNotApply, Finding, NotChecked, Outcome, Result
from lbha.engine import one_line
from lbha.errors import LbhaError

DEADLINE = 5.0
"""Seconds for all checks together, and so for each."""

_T = TypeVar("_T")


def examine(checks: Sequence[Check[_T]], subject: _T, *, seconds: float = DEADLINE) -> list[Outcome]:
    """The outcome of each check, in their order, after `seconds` at most."""
    begun = time.monotonic()
    made: dict[str, Outcome] = {}

    def make(check: Check[_T]) -> None:
        made[check.name] = make_one(check, subject)

    # Daemons: a check that hangs must not keep the process from ending.
    threads = [threading.Thread(target=make, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, begun + seconds - time.monotonic()))
    late = Outcome("", Result.NOT_CHECKED, why=f"it did not end within {seconds:g} s", ms=seconds * 1000)
    return [made.get(check.name) or Outcome(check.name, late.result, (), late.why, late.ms) for check in checks]


def make_one(check: Check[_T], subject: _T) -> Outcome:
    """One check, now. Whatever it raises is told, never a pass."""
    begun = time.monotonic()
    result, why = Result.GOOD, None
    findings: list[Finding] = []
    try:
        for finding in check.run(subject):
            findings.append(finding)  # noqa: PERF402 (what was found before a failure counts)
    except DoesNotApply as error:
        result, why = Result.DOES_NOT_APPLY, str(error)
    except (NotChecked, LbhaError, OSError) as error:
        result, why = Result.NOT_CHECKED, one_line(error)
    except Exception as error:
        # An answer that nobody foresaw, of a daemon or of the kernel, is no reason to hide all other checks.
        result, why = Result.NOT_CHECKED, f"{type(error).__name__}: {error}"
    if findings:
        result = Result.FOUND
    return Outcome(check.name, result, tuple(findings), why, round((time.monotonic() - begun) * 1000, 1))
