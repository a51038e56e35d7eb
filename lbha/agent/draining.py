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
    """Kept in `state_dir`, so that it outlives a restart. `booted`: this is the first agent since then."""

    def __init__(self, state_dir: Path, *, booted: bool) -> None:
        self._state_dir = state_dir
        self._drain, problem = drain.load(state_dir, time.time())
        if booted and self._drain and self._drain.until_boot:
            self.end()
        if problem:
            _LOG.warning("%s", problem)

    @property
    def in_force(self) -> Drain | None:
        """None also once it has expired."""
        return drain.in_force(self._drain, time.time())

    def begin(self, status: Status, until: float | None, reason: str, *, force: bool, until_boot: bool) -> None:
        """LbhaError when nobody could take over, without `force`, and when it cannot be kept.

        One that ends with the next boot does not replace another, which may be meant to last longer.
        """
        now = time.time()
        if until_boot and self.in_force:
            return
        if not force and (refusal := drain.refusal(status, now)):
            raise LbhaError(refusal)
        self._keep(Drain(now, until, reason, until_boot))

    def end(self) -> None:
        """LbhaError when that cannot be kept."""
        self._keep(None)

    def _keep(self, wanted: Drain | None) -> None:
        try:
            drain.save(self._state_dir, wanted)
        except OSError as error:
            raise LbhaError(f"{error.filename}: {error.strerror}; nothing was changed") from None
        self._drain = wanted
