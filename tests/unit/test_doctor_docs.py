"""docs/doctor.md names every check, what it looks at, and how bad it may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from lbha import doctor
from lbha.cli import group
from lbha.doctor.before_apply import CHECKS as BEFORE_APPLY
from lbha.doctor.model import Severity
from lbha.doctor.recipe import RECIPE_CHECKS
from lbha.doctor.registry import CHECKS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "doctor.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| ([a-z, ]+) \| ", PAGE, re.MULTILINE)
"""(check, about, severities)."""


def test_the_page_names_every_check_and_no_other() -> None:
    assert [(name, about) for name, about, _ in ROWS] == [
        (check.name, check.about) for check in (*CHECKS, *RECIPE_CHECKS)
    ]


def test_names_are_unique_and_good_for_a_command_line() -> None:
    names = [check.name for check in (*CHECKS, *RECIPE_CHECKS)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    root = Path(__file__).parent.parent.parent
    for page in ("docs/doctor.md", "README.md", "CHANGELOG.md"):
        assert f"{len(CHECKS)} checks" in (root / page).read_text(encoding="utf-8"), page


def severities() -> dict[str, set[str]]:
    """By check, the severities that stand in the code."""
    found: dict[str, set[str]] = {}
    for path in Path(str(doctor.__file__)).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Finding":
                name, severity = call.args[:2]
                if isinstance(name, ast.Constant):
                    words = {
                        each.attr.lower() for each in ast.walk(severity) if isinstance(each, ast.Attribute)
                    }
                    found.setdefault(str(name.value), set()).update(words & set(Severity))
    return found


def test_the_page_tells_how_bad_each_may_be() -> None:
    told = {name: set(words.split(", ")) for name, _, words in ROWS}
    for name, found in severities().items():
        assert found <= told[name], name
    for words in told.values():
        assert words <= set(Severity)


def test_what_apply_is_refused_for_is_in_the_registry_and_on_the_page() -> None:
    runs = {check.name: check.run for check in CHECKS}
    for check in BEFORE_APPLY:
        assert runs[check.name] is check.run
        assert f"`{check.name}`" in PAGE.partition("## This node")[0]


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(group, ["doctor", *arguments], standalone_mode=False)
    if done.exception:
        raise done.exception
    return int(done.return_value), done.output


def test_the_list() -> None:
    code, output = invoke("--list")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == [check.name for check in CHECKS]
    assert invoke("--list", "--only", "clocks")[1].split()[0] == "clocks"


def test_a_check_that_there_is_not() -> None:
    import click

    with pytest.raises(click.BadParameter, match="there is no check 'no'"):
        invoke("--only", "no", "--list")
