"""What an operator wants single servers to be: {state_dir}/servers.json, {"etcd/cp2": "drain"}.

It outlives reloads and restarts, and is no difference that an apply would repair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from lbha import files
from lbha.errors import EngineError

Override = Literal["drain", "maint"]


def path(state_dir: str | Path) -> Path:
    """Where they are kept."""
    return Path(state_dir) / "servers.json"


def read(state_dir: str | Path) -> dict[str, Override]:
    """SERVICE/SERVER -> what it should be. EngineError when the file cannot be understood."""
    data = files.read(path(state_dir))
    if data is None:
        return {}
    try:
        return msgspec.json.decode(data, type=dict[str, Override])
    except msgspec.MsgspecError as error:
        raise EngineError(
            f'{path(state_dir)}: {error}; write {{"SERVICE/SERVER": "drain"}} or "maint", or remove it'
        ) from None


def write(state_dir: str | Path, overrides: dict[str, Override]) -> None:
    """Keep them, whole at every instant, for root alone. OSError."""
    files.write(path(state_dir), msgspec.json.encode(dict(sorted(overrides.items()))), files.PRIVATE)
