"""A single name, path or number: what may stand in a line of haproxy.cfg or keepalived.conf.

Templates put values into lines unescaped, so nothing with a meaning there gets through: no blank, quote, `#`,
`$`, brace, bracket, and no comma (haproxy takes `stats socket /run/x,0.0.0.0:9999` as two sockets).
"""

from __future__ import annotations

from collections.abc import Sequence

from lbha.config.document import Document

PATH_MAX = 200
"""A track script names four paths, and a line of 1024 characters crashes keepalived 2.2.7 (measured)."""

SOCKET_MAX = 95
"""haproxy binds `PATH.PID.tmp` first and renames it: 107 characters (unix(7)) less `.4194304.tmp`."""

RUN_DIR_MAX = 90
"""The agent binds `DIR/.agent.sock.new` first and renames it."""


def name(document: Document, key: str, value: str, *, longest: int = 63, lower: bool = False) -> str:
    """A name of ASCII letters, digits and, inside, "." "_" "-" (`lower`: lower-case letters and "-" only)."""
    marks = "-" if lower else "._-"
    if (
        not is_word(value, marks, longest)
        or not (value[0].isalnum() and value[-1].isalnum())
        or (lower and value != value.lower())
    ):
        letters, inside = ("lower-case letters", '"-"') if lower else ("letters", '".", "_", "-"')
        document.fail(
            key,
            value,
            "not a name that can stand in a configuration line",
            f"use {letters}, digits and, between them, {inside}, at most {longest} characters",
        )
    return value


def path(document: Document, key: str, value: str, *, longest: int = PATH_MAX) -> str:
    """An absolute path in its one normal form, so that equal files are equal paths."""
    if not value.startswith("/") or not is_word(value, "._-+/", len(value)):
        document.fail(
            key,
            value,
            "not a path that can stand in a configuration line",
            "write an absolute path of letters, digits and . _ - +",
        )
    parts = value[1:].split("/")
    if any(part in ("", ".", "..") for part in parts):
        document.fail(
            key, value, "not in its normal form", 'write it without "//", "." and "..", and no "/" last'
        )
    if len(value) > longest:
        why = "too long" if longest == PATH_MAX else "too long for a UNIX socket"
        document.fail(key, value, why, f"write at most {longest} characters")
    return value


def is_word(value: str, marks: str, longest: int) -> bool:
    """Nothing but ASCII letters, digits and `marks`, 1 to `longest` of them."""
    return (
        0 < len(value) <= longest and value.isascii() and all(char.isalnum() or char in marks for char in value)
    )


def is_interface(value: str) -> bool:
    """A name that Linux gives interfaces (15 bytes) and that can stand in a configuration line."""
    return is_word(value, "._-", 15) and value[0].isalnum()


def number(document: Document, key: str, value: int, lowest: int, highest: int) -> int:
    """A whole number in a range."""
    if not lowest <= value <= highest:
        document.fail(key, value, "out of range", f"write a whole number from {lowest} to {highest}")
    return value


def seconds(
    document: Document, key: str, value: float, lowest: float, highest: float, per_second: int
) -> float:
    """Seconds in a range, in steps of 1/per_second, exactly. Refuses nan and inf."""
    steps = round(value * per_second) if lowest <= value <= highest else 0
    if not steps or abs(value * per_second - steps) > 1e-6:
        document.fail(
            key,
            value,
            "out of range",
            f"write seconds from {lowest:g} to {highest:g} in steps of {1 / per_second:g}",
        )
    return steps / per_second


def unique(document: Document, key: str, values: Sequence[str]) -> None:
    """No value stands twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            document.fail(key, value, "stands twice", "keep one")
        seen.add(value)
