"""keepalived's notifications as facts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import pytest

from lbha.agent.vrrp_watch import VrrpWatch, parse
from lbha.facts import VrrpFacts
from lbha.keepalived import Instance, Keepalived, State


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ('INSTANCE "lbha" MASTER 254', VrrpFacts("MASTER", 254)),
        ('INSTANCE "lbha" BACKUP 12', VrrpFacts("BACKUP", 12)),
        ('INSTANCE "lbha" BACKUP_PRIORITY 114', VrrpFacts("BACKUP", 114)),
        ('INSTANCE "lbha" MASTER_PRIORITY 231', VrrpFacts("MASTER", 231)),
        ('INSTANCE "lbha" FAULT 0', VrrpFacts("FAULT", 0)),
        ('INSTANCE "lbha" STOP 12', VrrpFacts(problem="keepalived is stopped")),
        ('INSTANCE "other" MASTER 254', None),
        ('GROUP "lbha" MASTER 254', None),
        ('INSTANCE "lbha" DANCING 254', None),
        ('INSTANCE "lbha" MASTER many', None),
        ("", None),
    ],
)
def test_a_line(line: str, facts: VrrpFacts | None) -> None:
    assert parse(line) == facts


class Slow:
    """In place of keepalived: its JSON says what was so when it was asked; `meanwhile` goes to the FIFO."""

    def __init__(self, fifo: Path, meanwhile: str) -> None:
        self._fifo, self._meanwhile = fifo, meanwhile

    def state(self) -> tuple[Instance, ...]:
        with self._fifo.open("w") as fifo:
            fifo.write(self._meanwhile)
        time.sleep(0.2)
        return (Instance("lbha", State.BACKUP, 12, 12, vipset=False),)


@pytest.mark.parametrize(
    ("meanwhile", "facts"),
    [
        ("", VrrpFacts("BACKUP", 12)),
        ('INSTANCE "lbha" BACKUP_PRIORITY 177\n', VrrpFacts("BACKUP", 177)),
        ('INSTANCE "other" BACKUP_PRIORITY 177\n', VrrpFacts("BACKUP", 12)),
    ],
)
def test_a_look_does_not_undo_what_was_said_after_it(tmp_path: Path, meanwhile: str, facts: VrrpFacts) -> None:
    """It would stand until the next look, 10 s later."""

    async def watched() -> VrrpFacts:
        fifo = tmp_path / "fifo"
        watch = VrrpWatch(fifo, cast(Keepalived, Slow(fifo, meanwhile)), lambda: None)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(0.6)
        task.cancel()
        return watch.facts

    assert asyncio.run(watched()) == facts
