"""What the commands that ask the agent share."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click

from lbha.model import Paths

_RUN_DIR = re.compile(r"""^\s*run_dir\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def run_dir(config_file: Path) -> str:
    """Where the agent's socket is.

    lbha.toml is not checked: an agent that refused it is to be asked all the same, then most of all.
    """
    try:
        text = config_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Paths().run_dir
    try:
        found: Any = tomllib.loads(text)["paths"]["run_dir"]
    except tomllib.TOMLDecodeError:
        match = _RUN_DIR.search(text)
        found = match.group(1) if match else None
    except (LookupError, TypeError):
        found = None
    return found if isinstance(found, str) else Paths().run_dir


def seconds(value: str) -> float:
    """`90s`, `30m`, `2h`, `1d`: an option's type."""
    match = _DURATION.fullmatch(value)
    if match is None or float(match.group(1)) <= 0:
        raise click.BadParameter(f"{value!r} is no duration; write 90s, 30m, 2h or 1d")
    return float(match.group(1)) * _SECONDS[match.group(2)]
