"""What the drivers of haproxy, nftables and keepalived share: one shape, `Engine`; apply knows no other."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lbha.errors import EngineError
from lbha.live import Server

_SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DIGEST = re.compile(
    r"^\s*(?:(?:description|router_id)\s+lbha-|[^#\n]*\scomment \"lbha-)([0-9a-f]{12})\"?\s*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers: its process (haproxy: the worker; the kernel: 0) and the digest of what it runs.

    `digest` is None when the daemon runs a file that does not carry one, such as an operator's own. `servers`
    are haproxy's, which its digest leaves out.
    """

    pid: int
    digest: str | None
    servers: tuple[Server, ...] = field(default=(), compare=False)


class Engine(Protocol):
    """A driver: how apply proves a file, and tells a daemon to run it. Every wait is bounded."""

    name: str
    file: str
    absent: str | None
    """The text that stands for a file that is not there; None where the daemon goes on with what it has."""

    def version(self) -> str:
        """The installed engine's version. EngineError when it is not installed."""

    def validate(self, path: Path) -> None:
        """Have the engine itself read the file. EngineError with its own words."""

    def preflight(self, text: str, running: Running | None) -> None:
        """What the engine's own check leaves out and would hurt. EngineError."""

    def running(self) -> Running | None:
        """What runs now; None when no daemon does. EngineError when one does but cannot be driven."""

    def runs(self, running: Running, text: str) -> bool:
        """Whether it runs `text`, which carries a digest."""

    def adjustable(self, running: Running, text: str) -> bool:
        """Whether it can come to run `text` without a reload."""

    def adjust(self, text: str) -> bool:
        """Make the daemon run `text`, which lies in its place, without a reload. False when that cannot be."""

    def reload(self, text: str) -> None:
        """Make the daemon run `text`, which lies in its place; returns when it does. EngineError otherwise."""


class Deadline:
    """A moment that every wait of one operation shares."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never less than 0."""
        return max(0.0, self._end - time.monotonic())

    def wait(self, seconds: float) -> bool:
        """Sleep a little, not past the end. False when the end has come."""
        time.sleep(min(seconds, self.left))
        return self.left > 0


def digest_in(text: str) -> str | None:
    """The digest that a rendered file carries; None in an operator's own file."""
    match = _DIGEST.search(text)
    return match.group(1) if match else None


def installed(name: str) -> str | None:
    """Where an engine's program is; None when it is not installed."""
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def run(
    name: str, arguments: Sequence[str], timeout: float, *, package: str | None = None, stdin: str = ""
) -> tuple[int, str]:
    """Run an engine's own program; its exit code and all it said.

    Raises EngineError when it is not installed (`package` is Debian's, where it has another name) or does not
    end within `timeout` s.
    """
    program = installed(name)
    if program is None:
        raise EngineError(f"{name} is not installed; apt-get install {package or name}")
    try:
        done = subprocess.run(
            [program, *arguments],
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"{name} {' '.join(arguments)} did not end within {timeout:g} s; run it by hand to see why"
        ) from None
    except OSError as error:
        raise EngineError(f"{program} cannot be run: {error.strerror or error}") from None
    return done.returncode, done.stdout.decode("utf-8", "replace")


def first_problem(lines: Sequence[str]) -> str:
    """One line out of many: the first, and how many more there are."""
    if not lines:
        return "it gave no reason"
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{lines[0]}{more}"


def one_line(error: Exception) -> str:
    """What an operator should read of it: the file, where there is one, and what is wrong."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)
