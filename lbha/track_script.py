"""Proof that keepalived's track scripts can run. keepalived fails open: a script that is missing, not
executable, insecure or without its interpreter leaves the node healthy for ever (2.2.7, 2.3.3; its #2126).
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

from lbha.errors import EngineError

TIMEOUT = 5.0
"""Seconds that `lbha check --help` may take; the checks themselves have 0.9."""

_SCRIPT = re.compile(r'^\s*script\s+"([^"]*)"', re.MULTILINE)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""As poor as a daemon's: no virtual environment, no PYTHONPATH."""


def prove(text: str, lbha: str) -> None:
    """Run `lbha check` as the keepalived.conf `text` will. EngineError that says what would do.

    What a script only passes on, as `lbha-track` does `lbha`, must be as safe as the script.
    """
    words = {word for line in _SCRIPT.findall(text) for word in shlex.split(line)}
    if lbha in words:
        for program in (Path(lbha), Path(lbha).resolve().parent / "lbha-track"):
            if str(program) in words:
                _prove_safe(program)
        _prove_runs(Path(lbha))


def _prove_safe(program: Path) -> None:
    """keepalived's own rule (enable_script_security): nobody but root may change what it runs as root."""
    if not program.is_absolute():
        raise _refusal(program, "not an absolute path")
    if not program.is_file():
        raise _refusal(program, "no such file")
    if not os.access(program, os.X_OK):
        raise _refusal(program, "not executable")
    resolved = program.resolve()
    for path in sorted({program, resolved, *program.parents, *resolved.parents}):
        status = path.lstat()
        if who := others_who_change(status.st_mode, status.st_uid, status.st_gid):
            raise _refusal(program, f"{path} {who}")


def others_who_change(mode: int, uid: int, gid: int) -> str | None:
    """Who but root may change a file, or what is in a directory, of that lstat; None: nobody.

    A group of root's (gid 0) is root, what is in a sticky directory is its owners', and of a link only what it
    leads to counts.
    """
    if stat.S_ISLNK(mode):
        return None
    if uid != 0:
        return f"belongs to uid {uid}, not to root"
    sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    others = mode & (stat.S_IWOTH | (stat.S_IWGRP if gid else 0))
    return f"is writable by others than root ({mode & 0o7777:o})" if others and not sticky else None


def _prove_runs(program: Path) -> None:
    try:
        done = subprocess.run(
            [program, "check", "--help"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT,
            check=False,
            cwd="/",
            env=_ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        raise _refusal(program, f"`check --help` did not end within {TIMEOUT:g} s") from None
    except OSError as error:  # its interpreter is gone
        raise _refusal(program, f"cannot be run: {error.strerror or error}") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _refusal(
            program, f"`check --help` ends with {done.returncode}: {said[-1] if said else 'no reason'}"
        )


def _refusal(program: Path, problem: str) -> EngineError:
    return EngineError(
        f"keepalived could not run the track script {program}: {problem}; install lbha where only root "
        'writes, and say where with [paths] lbha = "/usr/bin/lbha"'
    )
