"""What the doctor finds, and what a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Severity(StrEnum):
    """How bad it is, the worst first."""

    FATAL = "fatal"
    """lbha cannot work here, or two hosts will have the VIP."""
    ERROR = "error"
    """A failover will not work, or the VIP does not serve."""
    WARNING = "warning"
    """All is well until something happens; then it hurts."""
    HINT = "hint"
    """Good to know; may be meant so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One trap: the check that saw it, what was seen (file, value), and the command or key that cures it."""

    name: str
    severity: Severity
    evidence: str
    cure: str


class NotChecked(Exception):
    """A check could not be made, and why. Never a pass."""


class DoesNotApply(Exception):
    """There is nothing here that a check is about, and why."""


@dataclass(frozen=True, slots=True)
class Check(Generic[_T]):
    """A named look at a subject (a node's `Context`, or a `Recipe`). `run` may raise NotChecked, DoesNotApply,
    LbhaError and OSError; `about` is one line for people."""

    name: str
    about: str
    run: Callable[[_T], Iterable[Finding]]


class Result(StrEnum):
    """What became of a check."""

    GOOD = "good"
    FOUND = "found"
    NOT_CHECKED = "not checked"
    DOES_NOT_APPLY = "does not apply"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A check that was made, or was not: then `why`. In `ms`."""

    name: str
    result: Result
    findings: tuple[Finding, ...] = ()
    why: str | None = None
    ms: float = 0.0


EXIT_CODES = {Severity.FATAL: 5, Severity.ERROR: 4, Severity.WARNING: 3}
"""By the worst finding. Hints leave it at 0."""

NOT_ALL_CHECKED = 1
"""Nothing worse than a hint, but a check could not be made."""


def worst(outcomes: Iterable[Outcome]) -> Severity | None:
    """The worst severity that was found."""
    found = {finding.severity for outcome in outcomes for finding in outcome.findings}
    return next((severity for severity in Severity if severity in found), None)


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0: all was looked at, and nothing is worse than a hint."""
    made = tuple(outcomes)
    code = EXIT_CODES.get(worst(made) or Severity.HINT, 0)
    unchecked = any(outcome.result is Result.NOT_CHECKED for outcome in made)
    return code or (NOT_ALL_CHECKED if unchecked else 0)
