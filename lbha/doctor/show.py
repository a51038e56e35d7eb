"""Outcomes as a table for people, and as an object for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lbha.doctor.model import Check, Outcome, Result, Severity, exit_code, worst

STYLES = {Severity.FATAL: "bold red", Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.HINT: "cyan"}


def people(outcomes: Sequence[Outcome]) -> RenderableType:
    """The worst first; then what could not be looked at; then a count."""
    parts: list[RenderableType] = []
    found = [finding for outcome in outcomes for finding in outcome.findings]
    order = list(Severity)
    if found:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), show_header=True, header_style="bold")
        table.add_column("severity")
        table.add_column("check", overflow="fold")
        table.add_column("what was seen, and what cures it", overflow="fold", ratio=1)
        for finding in sorted(found, key=lambda each: order.index(each.severity)):
            told = Text.assemble(finding.evidence, "\n", ("→ ", "dim"), (finding.cure, "green"))
            table.add_row(Text(finding.severity, STYLES[finding.severity]), finding.name, told)
        parts.append(table)
    by_reason: dict[tuple[str, str | None], list[str]] = {}
    for each in outcomes:
        if each.result is Result.NOT_CHECKED:
            by_reason.setdefault(("not checked", each.why), []).append(each.name)
        elif each.result is Result.FOUND and each.why:
            by_reason.setdefault(("only in part", each.why), []).append(each.name)
    parts += [Text(f"{how}: {', '.join(names)}: {why}", "yellow") for (how, why), names in by_reason.items()]
    parts.append(_count(outcomes))
    return Group(*parts)


def _count(outcomes: Sequence[Outcome]) -> Text:
    made = Counter(outcome.result for outcome in outcomes)
    by_severity = Counter(finding.severity for outcome in outcomes for finding in outcome.findings)
    told = [f"{by_severity[severity]} {severity}" for severity in Severity if by_severity[severity]]
    told += [f"{made[result]} {result}" for result in Result if made[result] and result is not Result.FOUND]
    worst_of_all = worst(outcomes)
    style = STYLES[worst_of_all] if worst_of_all else "green" if not made[Result.NOT_CHECKED] else "yellow"
    return Text(f"{len(outcomes)} checks: {', '.join(told)}", style)


def programs(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """For --json."""
    return {"worst": worst(outcomes), "exit_code": exit_code(outcomes), "checks": list(outcomes)}


def listed(checks: Sequence[Check[Any]]) -> str:
    """For --list: a line for each check."""
    width = max(len(check.name) for check in checks)
    return "\n".join(f"{check.name:<{width}}  {check.about}" for check in checks)
