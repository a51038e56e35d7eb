"""docs/operating.md shows what is really printed."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from statuses import NOW, alone, cluster, report, server, silent, status, with_report, with_servers

from lbha import drain
from lbha.agent import show
from lbha.agent.explain import explain, lines, outcome_lines
from lbha.facts import Drain, Status
from lbha.outcome import after

PAGE = Path(__file__).parent.parent.parent / "docs" / "operating.md"


def shown(found: Status) -> str:
    console = Console(width=110, file=io.StringIO())
    console.print(show.status(found, NOW))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def examples() -> dict[str, str]:
    sick = with_servers(
        with_report(silent(status(own=3), "cp2"), report(1, holds=True)),
        server("etcd", 2, "DOWN", "L4TOUT"),
        server("apiserver", 2, "DOWN", "L4TOUT"),
    )
    drained = replace(
        status(holder=2), report=report(1, drained=True), drain=Drain(NOW - 60, NOW + 1740, "new kernel")
    )
    found = explain(status(own=2), (), (), NOW)
    stuck = with_report(silent(status(), "cp2"), report(3, serving=False))
    return {
        "healthy": shown(status()),
        "sick": "\n".join(shown(sick).splitlines()[:10]),
        "drained": "\n".join(shown(drained).splitlines()[:7]),
        "explain": "\n".join(lines(found, NOW)[:7]),
        "dies": "\n".join(outcome_lines(after(cluster(), status(own=2), "cp1"))),
        "haproxy": "\n".join(outcome_lines(after(cluster(), status(own=2), "cp1/haproxy"))),
        "etcd": "\n".join(outcome_lines(after(cluster(), status(own=2), "cp1/etcd"))),
        "refused": f"lbha: {drain.refusal(stuck, NOW)}",
        "alone": f"lbha: {drain.refusal(alone(status()), NOW)}",
    }


def test_the_page_shows_what_is_printed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, text in examples().items():
        assert text in page, f"{name}:\n{text}"
