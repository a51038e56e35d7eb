"""How checks are made: at once, bounded, and never passed by a failure."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha.doctor.examine import examine
from lbha.doctor.model import (
    Check,
    DoesNotApply,
    Finding,
    NotChecked,
    Outcome,
    Result,
    Severity,
    exit_code,
    worst,
)
from lbha.doctor.show import people, programs
from lbha.errors import EngineError

FINDING = Finding("bad", Severity.ERROR, "seen", "cure")


def good(_: object) -> list[Finding]:
    return []


def bad(_: object) -> list[Finding]:
    return [FINDING]


def half(_: object) -> Iterator[Finding]:
    yield FINDING
    raise NotChecked("the rest is not known")


def raising(error: Exception) -> Check[object]:
    def run(_: object) -> list[Finding]:
        raise error

    return Check("raising", "", run)


def one(check: Check[object], seconds: float = 5.0) -> Outcome:
    (outcome,) = examine([check], object(), seconds=seconds)
    return outcome


def test_what_is_found_and_what_is_not() -> None:
    outcomes = examine([Check("good", "", good), Check("bad", "", bad)], object())
    assert [outcome.result for outcome in outcomes] == [Result.GOOD, Result.FOUND]
    assert outcomes[1].findings == (FINDING,)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NotChecked("no tool"), "no tool"),
        (EngineError("haproxy is frozen"), "haproxy is frozen"),
        (PermissionError(1, "Operation not permitted", "/proc/1"), "/proc/1: Operation not permitted"),
        (KeyError("cp9"), "KeyError: 'cp9'"),
    ],
)
def test_a_check_that_fails_is_not_checked_and_says_why(error: Exception, why: str) -> None:
    outcome = one(raising(error))
    assert (outcome.result, outcome.why, outcome.findings) == (Result.NOT_CHECKED, why, ())


def test_a_check_without_a_subject_does_not_apply() -> None:
    outcome = one(raising(DoesNotApply("no IPv6 VIP")))
    assert (outcome.result, outcome.why) == (Result.DOES_NOT_APPLY, "no IPv6 VIP")


def test_what_was_found_before_a_failure_counts() -> None:
    outcome = one(Check("half", "", half))
    assert (outcome.result, outcome.findings, outcome.why) == (
        Result.FOUND,
        (FINDING,),
        "the rest is not known",
    )


def test_a_check_that_hangs_is_waited_for_no_longer_than_the_deadline() -> None:
    def hang(_: object) -> list[Finding]:
        time.sleep(30)
        return []

    begun = time.monotonic()
    outcomes = examine([Check("hang", "", hang), Check("good", "", good)], object(), seconds=0.2)
    assert time.monotonic() - begun < 2
    assert [outcome.result for outcome in outcomes] == [Result.NOT_CHECKED, Result.GOOD]
    assert outcomes[0].why == "it did not end within 0.2 s"


def outcome(*severities: Severity, result: Result = Result.GOOD) -> Outcome:
    findings = tuple(Finding("x", severity, "", "") for severity in severities)
    return Outcome("x", Result.FOUND if findings else result, findings)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([outcome()], 0),
        ([outcome(Severity.HINT)], 0),
        ([outcome(Severity.HINT), outcome(result=Result.DOES_NOT_APPLY)], 0),
        ([outcome(Severity.HINT), outcome(result=Result.NOT_CHECKED)], 1),
        ([outcome(Severity.WARNING), outcome(result=Result.NOT_CHECKED)], 3),
        ([outcome(Severity.HINT, Severity.ERROR)], 4),
        ([outcome(Severity.ERROR), outcome(Severity.FATAL)], 5),
    ],
)
def test_the_exit_code_is_that_of_the_worst(outcomes: list[Outcome], code: int) -> None:
    assert exit_code(outcomes) == code


@given(st.lists(st.lists(st.sampled_from(Severity)), max_size=5))
def test_one_more_finding_never_makes_it_better(found: list[list[Severity]]) -> None:
    outcomes = [outcome(*severities) for severities in found]
    for more in Severity:
        assert exit_code([*outcomes, outcome(more)]) >= exit_code(outcomes)
        assert worst([*outcomes, outcome(more)]) is not None


def test_people_and_programs_are_told_everything() -> None:
    from rich.console import Console

    outcomes = [
        Outcome("bad", Result.FOUND, (FINDING,)),
        Outcome("one", Result.NOT_CHECKED, why="needs root"),
        Outcome("two", Result.NOT_CHECKED, why="needs root"),
    ]
    console = Console(width=100, record=True, quiet=False, file=__import__("io").StringIO())
    console.print(people(outcomes))
    text = console.export_text()
    for word in ("error", "bad", "seen", "→ cure", "not checked: one, two: needs root", "3 checks: 1 error"):
        assert word in text
    assert programs(outcomes)["worst"] == "error" and programs(outcomes)["exit_code"] == 4
