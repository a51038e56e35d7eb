"""What happened on this node, kept across restarts: JSON lines in {state_dir}/events.jsonl, newest last."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lbha import files

KEEP = 1000
"""Events that are kept. The file is rewritten when it has twice as many lines."""

_LOG = logging.getLogger("lbha")


@dataclass(frozen=True, slots=True)
class Event:
    """`at` in seconds since the epoch. `cause` is one word, for counting; `text` is for people."""

    at: float
    kind: str
    text: str
    cause: str | None = None


class Events:
    """The last `KEEP` events, in memory and on disk.

    A line is one write(2): a process that is killed leaves at most one torn line, which the next one skips. No
    fsync: the agent must not wait for a disk, and a power failure may cost the last few lines. A full disk
    costs nothing but the copy on disk, is told once, and is made up for by the next write that works.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.problem: str | None = None
        """Why the disk does not have all of it; None when it has."""
        self._path, self._clock = path, clock
        self._events: deque[Event] = deque(maxlen=KEEP)
        self._lines, self._whole = 0, True
        self._load()

    def add(self, kind: str, text: str, cause: str | None = None) -> Event:
        """Something happened now."""
        event = Event(self._clock(), kind, text, cause)
        self.keep(event)
        return event

    def keep(self, event: Event) -> None:
        """An event that carries its moment."""
        self._events.append(event)
        try:
            if self._whole and self._lines < 2 * KEEP:
                self._append(event)
            else:
                self._rewrite()
        except OSError as error:
            self._whole = False  # Perhaps half a line is there now: the next write lays all of it anew.
            if self.problem is None:
                _LOG.warning("%s: %s; events are kept in memory only", self._path, error.strerror)
            self.problem = f"{self._path}: {error.strerror}"
            return
        self.problem = None

    def last(self, n: int) -> list[Event]:
        """The newest `n`, oldest first."""
        return list(self._events)[-n:] if n > 0 else []

    def latest(self, *kinds: str) -> Event | None:
        """The newest of these kinds."""
        return next((event for event in reversed(self._events) if event.kind in kinds), None)

    def _append(self, event: Event) -> None:
        line = _line(event)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(28, "No space left on device")
        finally:
            os.close(descriptor)
        self._lines += 1

    def _rewrite(self) -> None:
        """Only then is the old file gone: at every instant the newest events are in one of the two."""
        files.private_directory(self._path.parent)
        files.write(self._path, b"".join(map(_line, self._events)), files.PRIVATE)
        self._lines, self._whole = len(self._events), True

    def _load(self) -> None:
        try:
            data = files.read(self._path) or b""
        except OSError as error:
            _LOG.warning("%s: %s; events are kept in memory only", self._path, error.strerror)
            self.problem, self._whole = f"{self._path}: {error.strerror}", False
            return
        lines = data.split(b"\n")
        self._whole = lines.pop() == b""
        self._lines = len(lines)
        for line in lines:
            try:
                self._events.append(msgspec.json.decode(line, type=Event))
            except msgspec.MsgspecError:
                self._whole = False


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"
