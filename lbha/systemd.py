"""systemd's driver: what `lbha install` asks of it."""

from __future__ import annotations

from pathlib import Path

from lbha import engine
from lbha.errors import LbhaError

_TIMEOUT = 100.0
"""Seconds; a service may take systemd's own 90 s to start or stop."""


def runs() -> bool:
    """Whether systemd is this host's service manager (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def is_active(unit: str) -> bool:
    """Whether it runs, or for a oneshot that remains: has run."""
    return engine.run("systemctl", ["is-active", "--quiet", unit], _TIMEOUT)[0] == 0


def is_enabled(unit: str) -> bool:
    """Whether it starts at boot."""
    return engine.run("systemctl", ["is-enabled", "--quiet", unit], _TIMEOUT)[0] == 0


def systemctl(*words: str) -> None:
    """Raises LbhaError with systemd's own words."""
    _run("systemctl", *words)


def create_files(conf: str) -> None:
    """What a file of tmpfiles.d names. LbhaError."""
    _run("systemd-tmpfiles", "--create", conf)


def _run(program: str, *words: str) -> None:
    code, output = engine.run(program, words, _TIMEOUT, package="systemd")
    if code != 0:
        said = engine.first_problem([line for line in output.splitlines() if line.strip()])
        raise LbhaError(f"{program} {' '.join(words)}: {said}")
