"""A shell completes commands, options, nodes and services: real bash, and the words that zsh and fish read.

Real zsh and fish: tests/engines/test_completion_shells.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "lbha"


@pytest.fixture
def file(tmp_path: Path, smallest: str) -> Path:
    made = tmp_path / "lbha.toml"
    made.write_text(smallest)
    return made


def bash(*words: str, **environment: str) -> list[str]:
    """What bash offers after TAB behind `words`, with the completion that lbha prints."""
    script = """
        eval "$(lbha completion bash)"
        complete -p lbha >&2
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _lbha_completion "$1"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PATH": path} | environment,
    )
    assert done.stderr == "complete -o nosort -F _lbha_completion lbha\n"
    return done.stdout.split()


def test_bash_completes_commands_and_options() -> None:
    assert bash("lbha", "st") == ["status"]
    assert bash("lbha", "dr") == ["drain", "drill"]
    assert bash("lbha", "config", "") == ["reference", "show"]
    assert bash("lbha", "status", "--w") == ["--watch"]
    assert bash("lbha", "completion", "z") == ["zsh"]


def test_bash_completes_the_nodes_of_the_file(file: Path) -> None:
    assert bash("lbha", "apply", "--node", "", LBHA_CONFIG=str(file)) == ["cp1", "cp2", "cp3"]
    assert bash("lbha", "apply", "-c", str(file), "--node", "cp2") == ["cp2"]


def test_the_short_way_of_check_does_not_hide_it_from_the_shell(file: Path) -> None:
    assert bash("lbha", "che") == ["check"]
    assert bash("lbha", "check", "", LBHA_CONFIG=str(file)) == ["haproxy", "holder", "apiserver", "etcd"]


def test_a_file_that_cannot_be_read_or_is_wrong_completes_nothing(file: Path) -> None:
    file.write_text("[cluster")
    for named in (str(file), "/nonexistent"):
        assert bash("lbha", "apply", "--node", "", LBHA_CONFIG=named) == []
        assert bash("lbha", "check", "h", LBHA_CONFIG=named) == ["haproxy", "holder"]


@pytest.mark.parametrize(
    ("shell", "begins", "asked"),
    [
        ("zsh", "#compdef lbha\n", {"COMP_WORDS": "lbha st", "COMP_CWORD": "1"}),
        ("fish", "function _lbha_completion\n", {"COMP_WORDS": "lbha st", "COMP_CWORD": "st"}),
    ],
)
def test_zsh_and_fish_are_answered(shell: str, begins: str, asked: dict[str, str]) -> None:
    printed = subprocess.run([PROGRAM, "completion", shell], capture_output=True, text=True, check=True)
    assert printed.stdout.startswith(begins)
    assert f"_LBHA_COMPLETE={shell}_complete" in printed.stdout
    environment = os.environ | asked | {"_LBHA_COMPLETE": f"{shell}_complete"}
    done = subprocess.run([PROGRAM], capture_output=True, text=True, check=True, env=environment)
    assert re.match(r"plain[\n,]status[\n\t]", done.stdout)


def test_another_shell_is_misuse() -> None:
    done = subprocess.run([PROGRAM, "completion", "tcsh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
