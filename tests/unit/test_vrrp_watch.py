"""keepalived's notifications as facts."""

from __future__ import annotations

import pytest

from lbha.agent.vrrp_watch import parse
from lbha.facts import VrrpFacts


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
