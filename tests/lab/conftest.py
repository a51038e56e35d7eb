"""Labs of this test run alone: their root, and so their namespaces, carry the process id."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbha.lab import lab


@pytest.fixture(scope="module")
def lab_root() -> Iterator[Path]:
    """A folder of labs of our own. Below /run: keepalived refuses scripts that others could change."""
    root = Path(f"/run/lbha-t{os.getpid()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LBHA_LAB_ROOT", str(root))
        try:
            yield root
        finally:
            for name in lab.names():
                lab.down(name)
    assert not root.exists()
