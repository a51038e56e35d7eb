"""keepalived's own word on its state: an ordered FIFO of changes, and now and then a look at all of it.

The FIFO must exist before keepalived starts, or each reload of keepalived makes a new one and this end goes
deaf (measured). The look (`Keepalived.state`) would find that out, and what was said before the agent came.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lbha.errors import EngineError
from lbha.facts import VrrpFacts
from lbha.keepalived import Keepalived
from lbha.trackers import make_fifo

LOOK_EVERY = 10.0
"""Seconds between two looks at keepalived's JSON."""

_INSTANCE = "lbha"


class VrrpWatch:
    """`facts` is the latest word. `heard` is called with each state that keepalived enters."""

    def __init__(self, fifo: Path, keepalived: Keepalived, changed: Callable[[], None]) -> None:
        self.facts = VrrpFacts(problem="not asked yet")
        self._fifo, self._keepalived, self._changed = fifo, keepalived, changed
        self._rest = b""
        self._changes = 0

    async def run(self) -> None:
        """Until cancelled."""
        make_fifo(self._fifo)
        loop = asyncio.get_running_loop()
        # For writing too: a FIFO without a writer would always be readable, at its end.
        descriptor = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(descriptor, self._hear, descriptor)
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_EVERY)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def look(self) -> None:
        """Ask keepalived for all of its state. It blocks for some ms, so a thread does it."""
        before = self._changes
        try:
            instances = await asyncio.to_thread(self._keepalived.state)
        except EngineError as error:
            self._say(VrrpFacts(problem=str(error)))
            return
        if self._changes != before:
            return  # The FIFO has said more since; this would be taken for newer until the next look.
        for each in instances or ():
            if each.iname == _INSTANCE:
                self._say(VrrpFacts(each.state.name, each.effective_priority))
                return
        self._say(
            VrrpFacts(problem="keepalived is down" if instances is None else "it does not run lbha's instance")
        )

    def _hear(self, descriptor: int) -> None:
        with suppress(BlockingIOError):
            self._rest += os.read(descriptor, 65536)
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            facts = parse(line.decode("ascii", "replace"))
            if facts:
                self._changes += 1
                self._say(facts)

    def _say(self, facts: VrrpFacts) -> None:
        if facts != self.facts:
            self.facts = facts
            self._changed()


def parse(line: str) -> VrrpFacts | None:
    """`INSTANCE "lbha" MASTER 250`, or `… BACKUP_PRIORITY 114` for a priority alone. None for other lines."""
    words = line.split()
    if len(words) != 4 or words[0] != "INSTANCE" or words[1] != f'"{_INSTANCE}"' or not words[3].isdigit():
        return None
    state, _, priority = words[2].partition("_")
    if state == "STOP":
        return VrrpFacts(problem="keepalived is stopped")
    if priority not in ("", "PRIORITY") or state not in ("MASTER", "BACKUP", "FAULT"):
        return None
    return VrrpFacts(state, int(words[3]))
