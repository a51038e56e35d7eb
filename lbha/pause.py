"""How long something that runs in a thread goes on: between its steps it asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class Pause(Protocol):
    """What says how long to go on."""

    def wait(self, seconds: float) -> bool:
        """Sleep a little. False when it is time to stop."""


class While:
    """Go on while `holds()` is true and nobody has said `stop`."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        self._holds = holds
        self._stopped = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Sleep, unless it is stopped meanwhile. Whether to go on."""
        return not self._stopped.wait(seconds) and self._holds()

    def stop(self) -> None:
        """From any thread."""
        self._stopped.set()
