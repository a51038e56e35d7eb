"""What all parts are told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lbha.lab import drill
from lbha.lab.spec import LabSpec


@dataclass(frozen=True, slots=True)
class Options:
    """`runs` is how often each thing is measured, `idle` for how long (s) the agent is watched, `faults` which
    (None: every one). `tell` hears what is done now."""

    runs: int
    idle: float
    faults: tuple[str, ...] | None
    tell: Callable[[str], None]


@contextmanager
def lab_with(setup: str, nodes: int, overrides: str = "") -> Iterator[LabSpec]:
    """A lab of its own, with that TOML merged into its lbha.toml, for as long as the `with` statement lasts."""
    with tempfile.TemporaryDirectory(prefix="lbha-bench-") as folder:
        file = Path(folder) / "overrides.toml"
        file.write_text(overrides)
        with drill.own_lab(setup, nodes, file if overrides else None) as spec:
            yield spec
