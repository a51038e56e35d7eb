"""lbha(1) names every command, option, exit code and variable, and man reads it without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lbha import check, errors
from lbha.cli import COMMANDS, group, manual
from lbha.model import Paths

SOURCE = Path(__file__).parent.parent.parent / "lbha"


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command by what is typed."""
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, info_name=name, parent=context))


EVERY = dict(commands(group, click.Context(group, info_name="lbha")))


def section(title: str) -> str:
    """What stands below a heading, with plain hyphens."""
    text = re.sub(r"\\f[BR]|\\&", "", manual.page()).replace(r"\-", "-").replace(r"\(dq", '"')
    return re.split(r"(?m)^\.S[SH] ", text.partition(f"{title}\n")[2])[0]


def test_every_command_has_its_section() -> None:
    assert {path.split()[1] for path in EVERY if path != "lbha"} == set(COMMANDS)
    found = re.findall(r'(?m)^\.SS "(.*)"$', manual.page().replace(r"\-", "-"))
    assert found == [path for path in EVERY if path != "lbha"]


@pytest.mark.parametrize("path", EVERY)
def test_every_option_stands_with_its_help_in_its_command(path: str) -> None:
    text = section(".SH OPTIONS" if path == "lbha" else f'.SS "{path}"')
    options = [each for each in EVERY[path].params if isinstance(each, click.Option)]
    for option in options:
        assert option.help
        term, about = re.findall(rf"(?m)^\.TP\n(.*{re.escape(option.opts[-1])}.*)\n(.*)$", text)[0]
        assert all(name in term for name in option.opts)
        assert about.startswith(option.help.replace("`", "").split("`")[0][:20])


def test_what_goes_past_click_is_there_too() -> None:
    text = section('.SS "lbha check"')
    options = re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", check.HELP)
    assert "--socket" in options and "--explain" in options
    assert all(option in text for option in options)


def test_exit_codes_variables_and_files() -> None:
    codes = {error.exit_code for error in vars(errors).values() if isinstance(error, type)}
    assert codes == {1, 2}
    told = re.findall(r"(?m)^\.TP\n([\d, ]+)$", section(".SH EXIT STATUS"))
    assert ", ".join(told) == "0, 1, 2, 3, 4, 5, 130"
    source = "".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    read = set(re.findall(r'(?:environ(?:\.get\(|\[)|envvar=)"(LBHA_\w+)"', source))
    assert len(read) >= 4 and {name for name, _ in manual.ENVIRONMENT} == read
    files = section(".SH FILES")
    assert all(f"\n{getattr(Paths(), key)}\n" in files for key in Paths.__dataclass_fields__ if key != "lbha")


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_man_formats_it_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "lbha.1"
    file.write_text(manual.page(), encoding="utf-8")
    command = ["groff", "-k", "-Tutf8", "-man", "-ww", "-P-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    plain = re.sub(r".\x08", "", done.stdout)
    assert "-V, --version" in plain
    # A paragraph that the help leaves as it is: none of its lines is filled up.
    assert re.search(r"(?m)^ +drain   no new connections, those that are there go on$", plain)
    assert "\\" not in plain.replace('"\\', "")
