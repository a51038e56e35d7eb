"""The time that a check has, its verdict, and the words for it."""

from __future__ import annotations

import _socket
import os
import time

DEADLINE = 0.85
"""When this process, counted from its start, stops waiting (s); the rest of BACKSTOP is for saying so."""

BACKSTOP = 0.9
"""When it is ended whatever it does (s): keepalived, with its whole seconds, gives it 1."""


class Bad(Exception):
    """Asked, and not good: the text says why. Exit code 1."""


class Misuse(Exception):
    """A mistake on the command line. Exit code 2."""


class Watch:
    """The time that is left, and what happened so far. All times are seconds."""

    __slots__ = ("began", "code", "doing", "end", "story", "target")

    def __init__(self) -> None:
        self.began = time.monotonic() - _age()
        self.end = self.began + DEADLINE
        self.code: int | None = None
        self.target = ""
        self.doing = "starting"
        self.story: list[str] = []

    def left(self) -> float:
        """How long the next step may take. Raises TimeoutError when the time is up."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def start(self, doing: str) -> None:
        """Say what comes next, "connecting to …": if it hangs or fails, this is the reason."""
        self.doing = doing
        self.note(doing)

    def late(self) -> str:
        """The verdict when the time is up."""
        return f"bad: {self.target}: after {BACKSTOP} s still {self.doing}"

    def note(self, fact: str) -> None:
        """Put a fact into the longer story."""
        self.story.append(f"  {(time.monotonic() - self.began) * 1000:6.1f} ms  {fact}")


def ip(address: str) -> tuple[int, bytes]:
    """The socket family and the bytes of an IP address. Raises Misuse."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    try:
        return family, _socket.inet_pton(family, address)
    except (OSError, ValueError):
        raise Misuse(f"{address} is not an IP address") from None


def told(error: BaseException) -> str:
    """An exception in words, never empty."""
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return words.partition(" (_ssl.c:")[0]


def line(text: str) -> str:
    """`text` on one line and harmless to a terminal: it may come from a stranger."""
    return "".join(char if char.isprintable() else "?" for char in text)[:500]


def _age() -> float:
    """Seconds since this process was started (proc(5): field 22 of stat), 0.0 to 0.5.

    Not more than 0.5: a shell that slept and then ran `exec lbha check` started long ago.
    """
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 (pathlib costs as much as Python's start)
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.1
    return min(max(age, 0.0), 0.5)
