"""TAB in a real bash and zsh at a terminal and in a real fish, with the completion that lbha prints."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "lbha"
ZSH = pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
FISH = pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")

_ZSHRC = """
PS1='ready> '
autoload -Uz compinit
tab() { zle expand-or-complete; print -r -- "$BUFFER" >>~/told }
zle -N tab
bindkey -e
bindkey '^I' tab
"""
"""TAB does what it always does, and writes down what then stands on the command line."""

_IN_FPATH = "fpath=(~/.zfunc $fpath); compinit -uD"
_EVALUATED = 'compinit -uD; eval "$(lbha completion zsh)"'

_BASHRC = """
PS1='ready> '
eval "$(lbha completion bash)"
tell() { printf '%s\\n' "$READLINE_LINE" >>~/told; }
bind -x '"\\C-t": tell'
"""
"""Ctrl-T writes down what stands on the command line."""


@pytest.fixture
def home(tmp_path: Path, smallest: str) -> Path:
    """A home in which lbha's completion lies where its help says, and a sudo that does not ask."""
    for shell, path in (("zsh", ".zfunc/_lbha"), ("fish", ".config/fish/completions/lbha.fish")):
        (tmp_path / path).parent.mkdir(parents=True)
        printed = subprocess.run([PROGRAM, "completion", shell], capture_output=True, text=True, check=True)
        (tmp_path / path).write_text(printed.stdout)
    (tmp_path / "lbha.toml").write_text(smallest)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin/sudo").chmod(0o755)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{PROGRAM.parent}:{home}/bin:/usr/bin:/bin",
        "LBHA_CONFIG": str(home / "lbha.toml"),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, home: Path, argv: list[str], after_tab: str = "") -> None:
        self._told = home / "told"
        self._after_tab = after_tab
        self._terminal, inside = pty.openpty()
        self._process = subprocess.Popen(
            argv, stdin=inside, stdout=inside, stderr=inside,
            env=environment(home), cwd=home, start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        self.screen = ""
        self._until("the prompt", lambda: "ready> " in self.screen)

    def line_after(self, typed: str) -> str:
        """What stands on the command line after `typed` and TAB."""
        self._told.unlink(missing_ok=True)
        os.write(self._terminal, f"\x15{typed}\t{self._after_tab}".encode())  # Ctrl-U clears the line
        self._until(f"TAB after {typed!r}", lambda: self._told.exists() and self._told.read_text())
        return self._told.read_text().removesuffix("\n")

    def shown_after(self, typed: str, word: str) -> str:
        """The screen after `typed` and TAB, as soon as `word` is on it."""
        os.write(self._terminal, f"\x15{typed}\t".encode())
        self._until(f"{word!r} after {typed!r}", lambda: word in self.screen)
        return self.screen

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _until(self, what: str, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, f"{what}: {self.screen}"
            if select.select([self._terminal], [], [], 0.05)[0]:
                self.screen += os.read(self._terminal, 65536).decode(errors="replace")


def zsh_at_terminal(home: Path, found: str = _IN_FPATH) -> Terminal:
    (home / ".zshrc").write_text(f"{_ZSHRC}{found}\n")
    return Terminal(home, ["zsh", "-i"])


@ZSH
@pytest.mark.parametrize("found", [_IN_FPATH, _EVALUATED])
def test_zsh_completes_at_a_terminal(home: Path, found: str) -> None:
    zsh = zsh_at_terminal(home, found)
    try:
        for typed, line in (
            ("lbha stat", "lbha status "),
            ("lbha status --w", "lbha status --watch "),
            ("lbha completion z", "lbha completion zsh "),
            ("lbha check h", "lbha check h"),  # haproxy, holder
            ("lbha check ap", "lbha check apiserver "),
            ("lbha apply --node ", "lbha apply --node cp"),
            ("lbha apply --node=", "lbha apply --node=cp"),
            ("lbha apply --node=cp2", "lbha apply --node=cp2 "),
            ("sudo lbha apply --node=cp3", "sudo lbha apply --node=cp3 "),
            ("lbha apply -c lbha.t", "lbha apply -c lbha.toml "),
            ("lbha apply --config=lbha.t", "lbha apply --config=lbha.toml "),
            ("lbha nonsense", "lbha nonsense"),
        ):
            assert zsh.line_after(typed) == line
    finally:
        zsh.close()


def test_bash_completes_at_a_terminal(home: Path) -> None:
    (home / "rc").write_text(_BASHRC)
    bash = Terminal(home, ["bash", "--rcfile", str(home / "rc"), "-i"], after_tab="\x14")
    try:
        for typed, line in (
            ("lbha stat", "lbha status "),
            ("lbha status --w", "lbha status --watch "),
            ("lbha check ap", "lbha check apiserver "),
            ("lbha apply --node ", "lbha apply --node cp"),
            ("lbha apply --node=", "lbha apply --node=cp"),
            ("lbha apply --node=cp2", "lbha apply --node=cp2 "),
            ("lbha apply -c lbha.t", "lbha apply -c lbha.toml "),
            ("lbha apply --config=lbha.t", "lbha apply --config=lbha.toml "),
            ("lbha apply --config=lbha.toml --node c", "lbha apply --config=lbha.toml --node cp"),
            ("lbha nonsense", "lbha nonsense"),
        ):
            assert bash.line_after(typed) == line
    finally:
        bash.close()


@ZSH
def test_zsh_shows_what_commands_do(home: Path) -> None:
    zsh = zsh_at_terminal(home)
    try:
        shown = zsh.shown_after("lbha dr", "drill  -- ")
        assert "drain  -- Move the VIP to another node, and keep it away for a while." in shown
    finally:
        zsh.close()


def fish(home: Path, typed: str) -> dict[str, str]:
    """What fish offers after `typed`: word -> description."""
    done = subprocess.run(
        ["fish", "-c", 'complete -C "$argv"', typed],
        capture_output=True, text=True, check=True, timeout=30, env=environment(home), cwd=home,
    )  # fmt: skip
    assert done.stderr == ""
    return dict((line + "\t").split("\t")[:2] for line in done.stdout.splitlines())


@FISH
def test_fish_completes(home: Path) -> None:
    nodes = ["cp1", "cp2", "cp3"]
    for typed, words in (
        ("lbha stat", ["status"]),
        ("lbha dr", ["drain", "drill"]),
        ("sudo lbha dr", ["drain", "drill"]),
        ("lbha status --w", ["--watch"]),
        ("lbha completion z", ["zsh"]),
        ("lbha check ", ["apiserver", "etcd", "haproxy", "holder"]),
        ("lbha apply --node ", nodes),
        ("lbha apply --node=", [f"--node={node}" for node in nodes]),
        ("true; lbha apply --node=cp2", ["--node=cp2"]),
        ("lbha apply -c lbha.t", ["lbha.toml"]),
        ("lbha apply --config=lbha.t", ["--config=lbha.toml"]),
        ("lbha nonsense", []),
    ):
        assert list(fish(home, typed)) == words, typed


@FISH
def test_fish_shows_what_commands_do_to_the_last_word(home: Path) -> None:
    assert fish(home, "lbha drai") == {"drain": "Move the VIP to another node, and keep it away for a while."}
