"""File -> text -> tables. Neither a pipe nor a device nor a monstrous file may hang it or fill the memory."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from lbha.config.document import printable
from lbha.errors import ConfigError

MAX_BYTES = 1 << 20
"""Ten thousand listed backends are a quarter of it."""

_KEY_PARTS = 128
"""tomllib needs quadratic time for a dotted key: 8000 parts take 1.5 s (measured), a full file hours."""


def read(path: Path) -> str:
    """The text of a regular file in UTF-8, at most MAX_BYTES long. Raises ConfigError."""
    source = printable(str(path))
    try:
        data = _bytes(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{source}: cannot be read: {reason}; name another file with -c FILE") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES >> 20} MiB; name a cluster file with -c FILE")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{source}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _bytes(path: Path) -> bytes:
    # Opening a pipe would wait for a writer, and reading a device never ends.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError("it is a directory" if stat.S_ISDIR(mode) else "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def tables(text: str, source: str) -> dict[str, Any]:
    """The document that the text is as TOML. Raises ConfigError with the line that is wrong."""
    told = f"{printable(source)}: not valid TOML"
    if text.startswith("\ufeff"):
        raise ConfigError(f"{told}: a byte order mark; save the file as UTF-8 without one")
    if _has_endless_key(text):
        raise ConfigError(f"{told}: a key of more than {_KEY_PARTS} parts; no key has more than 4")
    try:
        # Without a newline at the end tomllib tells no line of a name that stands twice in the last one.
        return tomllib.loads(text if text.endswith("\n") else f"{text}\n")
    except RecursionError:
        raise ConfigError(f"{told}: nested too deeply; no value needs more than a list in a table") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{told}: {_problem(text, str(error))}") from None
    except ValueError as error:  # a date that does not exist, an integer of 5000 digits
        raise ConfigError(f"{told}: {printable(str(error))}; correct or remove the value") from None


def _has_endless_key(text: str) -> bool:
    if all(line.count(".") < _KEY_PARTS for line in text.split("\n")):
        return False
    import re

    part = r"""(?>[A-Za-z0-9_-]++|"(?>[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
    return re.search(rf"(?<![A-Za-z0-9_-])(?:{part}[ \t]*+\.[ \t]*+){{{_KEY_PARTS}}}", text) is not None


def _problem(text: str, words: str) -> str:
    """tomllib's words, the line they are about, and what a newcomer should look for."""
    import re

    twice = words.startswith(("Cannot ", "Duplicate "))
    cure = "a name stands twice, keep one" if twice else "correct the line"
    match = re.search(r"\(at line (\d+), column \d+\)$", words)
    if match:
        # tomllib counts newlines; str.splitlines would also count form feeds and the like.
        line = text.split("\n")[int(match[1]) - 1]
        return f"{printable(words)}: {printable(line.strip())}; {cure}"
    return f"{printable(words)}; close what is open there"
