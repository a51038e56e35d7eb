"""The drain of this node: what is in force, and how an operator changes it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from lbha import drain
from lbha.errors import LbhaError
from lbha.facts import Drain, Status

_LOG = logging.getLogger("lbha")


class Draining:
    """Kept in `state_dir`, so that it outlives a restart."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._drain, problem = drain.load(state_dir, time.time())
        if problem:
            _LOG.warning("%s", problem)

    @property
    def in_force(self) -> Drain | None:
        """None also once it has expired."""
        return drain.in_force(self._drain, time.time())

    def begin(self, status: Status, until: float | None, reason: str, *, force: bool) -> None:
        """LbhaError when nobody could take over, without `force`, and when it cannot be kept."""
        now = time.time()
        if not force and (refusal := drain.refusal(status, now)):
            raise LbhaError(refusal)
        self._keep(Drain(now, until, reason))

    def end(self) -> None:
        """LbhaError when that cannot be kept."""
        self._keep(None)

    def _keep(self, wanted: Drain | None) -> None:
        try:
            drain.save(self._state_dir, wanted)
        except OSError as error:
            raise LbhaError(f"{error.filename}: {error.strerror}; nothing was changed") from None
        self._drain = wanted
