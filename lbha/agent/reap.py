"""Runs the reaper now and then: sessions on servers that left their pool, and old workers of haproxy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from lbha.errors import LbhaError
from lbha.facts import OldWorker
from lbha.model import Paths
from lbha.reaper import reap

EVERY = 10.0
"""Seconds."""

_LOG = logging.getLogger("lbha")


class Reap:
    """Until cancelled. `old_workers` are those that the last look found; `ended` is told a cause and a
    count."""

    def __init__(self, paths: Paths, ended: Callable[[str, int], None]) -> None:
        self._ended = ended
        self.old_workers: tuple[OldWorker, ...] = ()
        self._paths = paths

    async def run(self) -> None:
        """Look every `EVERY` s, in a thread."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                done = await asyncio.to_thread(reap, self._paths)
            except (LbhaError, OSError):
                continue  # haproxy does not answer: its watch says so.
            self.old_workers = tuple(done.old_workers)
            if done.ended or done.stranded:
                self._ended("left", done.ended)
                self._ended("stranded", done.stranded)
                _LOG.info(
                    "ended %d sessions on servers that left; %d in old workers", done.ended, done.stranded
                )
