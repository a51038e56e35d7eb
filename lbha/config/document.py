"""The tables as TOML gave them, and how a mistake in them is told: one line, the first one found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from lbha.errors import ConfigError


class Absent:
    """Marks a key that is not in the file."""


ABSENT: Final = Absent()

_DEPTH = 8
"""No key stands deeper than services.NAME.check.interval; inline tables in tables can nest for ever."""


@dataclass(frozen=True, slots=True)
class Document:
    """A cluster file: its name, for the operator, and its tables."""

    source: str
    tables: dict[str, Any]

    def fail(self, key: str, value: object, problem: str, cure: str) -> NoReturn:
        """Raises ConfigError. `key` as in the file, dotted; `value` ABSENT where there is none to show."""
        told = "" if isinstance(value, Absent) else f" = {shown(value)}"
        raise ConfigError(f"{printable(self.source)}: {printable(key)}{told}: {problem}; {cure}")


def refuse_unprintable(document: Document) -> None:
    """No text of the document holds what could start a line, hide, or turn the reading direction.

    Control and format characters (Cc, Cf: also U+202E), line separators, unassigned and private ones.
    """
    _walk(document, "", document.tables, _DEPTH)


def _walk(document: Document, key: str, value: object, depth: int) -> None:
    if isinstance(value, str):
        if not value.isprintable():
            document.fail(key, value, "a control character in the value", "remove it")
    elif isinstance(value, (dict, list)) and not depth:
        document.fail(key, ABSENT, "nested too deeply", "no key of a cluster file stands so deep: remove it")
    elif isinstance(value, dict):
        for name, item in value.items():
            inner = under(key, name)
            if not name.isprintable():
                document.fail(inner, ABSENT, "a control character in the name", "remove it")
            _walk(document, inner, item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _walk(document, key, item, depth - 1)


def under(key: str, name: str) -> str:
    """The dotted key of `name` in the table `key`, quoted where TOML wants it so."""
    bare = name.replace("-", "a").replace("_", "a")
    part = name if bare.isascii() and bare.isalnum() else f'"{_escaped(name)}"'
    return f"{key}.{part}" if key else part


def printable(text: str, limit: int = 120) -> str:
    """Text for one line of a terminal: escapes what could move its cursor, and shortens beyond `limit`."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: limit + 1])
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def shown(value: object) -> str:
    """A value as TOML would write it, near enough to be found in the file; never longer than a line."""
    if isinstance(value, str):
        return f'"{printable(_escaped(value))}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # str() refuses more than 4300 digits, and a hexadecimal number may have a million.
        return str(value) if value.bit_length() <= 64 else f"{hex(value)[:20]}…"
    if isinstance(value, dict):
        return "{ … }" if value else "{}"
    if isinstance(value, list):
        inside = ", ".join("[ … ]" if isinstance(item, list) else shown(item) for item in value[:4])
        return printable(f"[{inside}, …]" if len(value) > 4 else f"[{inside}]")
    return printable(str(value))


def suggest(wrong: str, known: Iterable[object], more: str = "") -> str:
    """What would do in place of `wrong`: the nearest of `known`, or all of them."""
    import difflib

    names = [str(name) for name in known]
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"use one of: {', '.join(names)}" + (f", {more}" if more else "")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
