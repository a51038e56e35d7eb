"""What happened, kept in one place: as an event on disk, counted for the metrics, and in the log."""

from __future__ import annotations

import logging
from pathlib import Path

from lbha.agent.events import Events
from lbha.agent.metrics import Counters
from lbha.agent.told import told
from lbha.facts import Applied, Status

_LOG = logging.getLogger("lbha")


class Record:
    """Of one agent, and of the one that it follows on (`before`)."""

    def __init__(self, state_dir: Path, before: Record | None) -> None:
        self.events = Events(state_dir / "events.jsonl")
        self.counters: Counters = before.counters if before else Counters()
        self._told: Status | None = before._told if before else None

    def tell(self, status: Status) -> None:
        """Keep what became different since the last time."""
        for event in told(self._told, status):
            self.events.keep(event)
            self.counters.event(event.kind)
            if event.kind in ("vip-gained", "vip-lost"):
                self.counters.transition(event.kind.removeprefix("vip-"), event.cause or "unknown")
            _LOG.info("%s: %s", event.kind, event.text, extra={"event": event.kind, "cause": event.cause})
        self._told = status

    def did(self, kind: str, text: str) -> None:
        """Something that the agent did itself."""
        self.events.add(kind, text)
        self.counters.event(kind)
        _LOG.info("%s: %s", kind, text, extra={"event": kind})

    def recovered(self, kind: str, count: int, text: str) -> None:
        """`count` clients were told that their connection is dead."""
        self.counters.recovered(kind, count)
        self.did(kind, text)

    def applied(self, applied: Applied) -> None:
        """An apply ended. What it changed becomes an event with the next status."""
        self.counters.applied(applied.result)
        level = logging.ERROR if applied.result == "refused" else logging.INFO
        _LOG.log(level, "%s: %s", applied.result, applied.text)
