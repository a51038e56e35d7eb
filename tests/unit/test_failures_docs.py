"""The pages on failures name only what there is: events, metrics, checks, and `lbha status`'s own words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbha.agent import loop, metrics, problems, recovery, told
from lbha.doctor.recipe import RECIPE_CHECKS
from lbha.doctor.registry import CHECKS

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "failures").glob("*.md"))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
INDEX = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
EVERY_PAGE = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def calls(module: object) -> Iterator[tuple[str, list[ast.expr]]]:
    """(name, arguments) of every call in a module."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            yield name, node.args


def strings(expression: ast.expr) -> Iterator[str]:
    """The constants that an argument may be."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        yield expression.value
    elif isinstance(expression, ast.IfExp):
        yield from (*strings(expression.body), *strings(expression.orelse))


def event_kinds() -> set[str]:
    """Every kind that the agent keeps."""
    found = {kind for name, args in calls(told) if name == "tell" for kind in strings(args[0])}
    found |= {kind for name, args in calls(told) if name == "Event" for kind in strings(args[1])}
    found |= {kind for name, args in calls(recovery) if name == "_told" for kind in strings(args[0])}
    found |= {
        kind for name, args in calls(loop) if name == "partial" for each in args[1:] for kind in strings(each)
    }
    # server-down and server-up stand in a loop of told.
    return found | {"server-down", "server-up"}


def metric_names() -> set[str]:
    """Every metric that the agent tells."""
    found = set()
    for name, args in calls(metrics):
        if name in ("_gauge", "_gauges"):
            found |= {f"lbha_{each}" for each in strings(args[0])}
        elif name == "_counter":
            found |= {f"lbha_{each}_total" for each in strings(args[0])}
        elif name == "HistogramMetricFamily":
            found |= set(strings(args[0]))
    return found


def mentioned() -> dict[str, set[str]]:
    """By class (events, metrics, doctor), the words in backticks of every "Told" item."""
    found: dict[str, set[str]] = {"events": set(), "metrics": set(), "doctor": set()}
    for item in re.findall(r"^- \*\*Told:\*\* ((?:.+\n)(?:  .+\n)*)", TEXT, re.MULTILINE):
        kind = ""
        for part in re.split(r"\b(events|metrics|doctor)\b(?= |\n)", item):
            if part in found:
                kind = part
            elif kind:
                found[kind] |= set(re.findall(r"`([^`]+)`", part))
    return found


def test_every_event_of_the_agent_is_in_the_list_and_with_a_failure() -> None:
    listed = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8").partition("## Events")[2]
    rows = {
        kind
        for row in re.findall(r"^\| (`.+?) \|", listed, re.MULTILINE)
        for kind in re.findall("`(.+?)`", row)
    }
    assert rows == event_kinds()
    assert event_kinds() - mentioned()["events"] == set()


def words(kind: str, form: str) -> set[str]:
    return {each for each in mentioned()[kind] if re.fullmatch(form, each)}


def test_what_is_named_exists() -> None:
    causes = {
        cause for name, args in calls(told) if name == "tell" for each in args[2:] for cause in strings(each)
    }
    causes |= {"silent", "unknown", "drain", "NOSPACE", "CORRUPT"}
    assert words("events", "[a-z]+(-[a-z]+)*|[A-Z]+") - causes <= event_kinds()
    named = {re.split(r"[{)]", each.removeprefix("sum("))[0] for each in words("metrics", r"(sum\()?lbha_.+")}
    assert len(named) > 10
    assert named <= metric_names()
    checks = {check.name for check in (*CHECKS, *RECIPE_CHECKS)}
    found = words("doctor", "[a-z]+(-[a-z0-9]+)*")
    assert len(found) > 15
    assert found <= checks


def templates() -> list[re.Pattern[str]]:
    """What `lbha status` may say, as patterns; not those that are nearly all names."""
    found = []
    for name, args in calls(problems):
        if name != "Problem":
            continue
        pieces = args[0].values if isinstance(args[0], ast.JoinedStr) else [args[0]]
        literal = [str(each.value) if isinstance(each, ast.Constant) else None for each in pieces]
        if sum(len(each or "") for each in literal) >= 8:
            found.append(re.compile("".join(".+" if each is None else re.escape(each) for each in literal)))
    return found


def shown() -> list[str]:
    """The lines of status in the pages' boxes."""
    return re.findall(
        r"^[!-] (.+)$", "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)), re.MULTILINE
    )


@pytest.mark.parametrize("line", sorted(set(shown())))
def test_status_says_so(line: str) -> None:
    server_lines = re.fullmatch(r"(apiserver|etcd): cp\d DOWN(, cp\d DOWN)*", line)
    keepalived = re.fullmatch(
        r"keepalived of cp\d: keepalived .+", line
    )  # lbha.agent.vrrp_watch, lbha.keepalived
    discovery = re.fullmatch(r"discovery of [a-z]+: .+", line)
    drained = re.fullmatch(r"cp\d is drained: .+", line)
    known = server_lines or keepalived or discovery or drained
    assert known or any(each.fullmatch(line) for each in templates())


def anchors(page: Path) -> set[str]:
    """GitHub's, of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"\[(.+?)\]\(.+?\)", r"\1", each).lower() for each in headings)
    return {re.sub(r"[^\w\- ]", "", each).replace(" ", "-") for each in plain}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        if anchor:
            assert anchor in anchors(to), target


def test_every_section_is_in_the_index() -> None:
    for page in PAGES:
        for heading in re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            assert f"(failures/{page.name}#{anchor})" in INDEX, heading


def test_every_document_is_in_the_list_of_documents() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "README.md":
            assert f"({page.relative_to(ROOT / 'docs')})" in listed, page.name
