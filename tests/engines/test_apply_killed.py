"""`lbha apply` killed by SIGKILL at random instants, under load.

LBHA_KILLS=200 makes the long run; LBHA_SEED repeats one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apply_host import VIP, Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

KILLS = int(os.environ.get("LBHA_KILLS", "20"))
SEED = int(os.environ.get("LBHA_SEED", str(random.randrange(10**6))))

SIDES = (((9001, 9002), ""), ((9001, 9002, 9003), "[failover]\nadvert_interval = 0.15\n"))
"""Two configurations; both engines' files differ between them, haproxy's in its servers alone."""

METRICS = '[metrics]\naddress = "127.0.0.1:8999"\n'
"""With it haproxy's structure differs as well."""


@pytest.fixture
def host() -> Iterator[Host]:
    """A host that serves."""
    host = Host()
    try:
        host.start()
        yield host
    finally:
        host.close()


def _lies(host: Host) -> tuple[str, str]:
    return host.file("haproxy.cfg"), host.file("keepalived.conf")


@pytest.mark.parametrize("more", ["", METRICS], ids=["adjusted", "reloaded"])
@pytest.mark.timeout(KILLS * 10 + 120)
def test_files_are_old_or_new_and_nobody_notices(host: Host, more: str) -> None:
    dice = random.Random(SEED)
    sides = (SIDES[0], (SIDES[1][0], SIDES[1][1] + more))
    allowed: list[tuple[str, str]] = []
    took = 0.0
    for side in (1, 0):
        host.configure(*sides[side])
        start = time.monotonic()
        assert host.apply().returncode == 0
        took = time.monotonic() - start
        allowed.insert(0, _lies(host))
    assert allowed[0][0] != allowed[1][0] and allowed[0][1] != allowed[1][1]
    stop = host.client(50)
    number = killed = mixed = finished = 0
    while killed < KILLS:
        number += 1
        host.configure(*sides[number % 2])
        process = host.start_lbha("apply", "-c", str(host.toml))
        time.sleep(dice.uniform(0, took))
        process.kill()
        process.communicate()
        killed += process.returncode == -9
        finished += process.returncode == 0
        cfg, conf = _lies(host)
        assert cfg in (allowed[0][0], allowed[1][0]), f"seed {SEED}, kill {number}"
        assert conf in (allowed[0][1], allowed[1][1]), f"seed {SEED}, kill {number}"
        mixed += (cfg, conf) not in allowed
        host.haproxy.validate(Path(host.paths.haproxy_cfg))
        if dice.random() < 0.5:
            done = host.apply()
            assert (done.returncode, done.stderr) == (0, ""), f"seed {SEED}, kill {number}"
            assert _lies(host) == allowed[number % 2]
            for driver, text in zip((host.haproxy, host.keepalived), _lies(host), strict=True):
                running = driver.running()
                assert running is not None and driver.runs(running, text)
            left = {path.name for path in (host.root / "etc").iterdir()}
            assert left == {"haproxy.cfg", "keepalived.conf"}
            assert not (host.state_dir / "history/pending").exists()
    assert VIP in host.ip("addr", "show", "dev", "eth0")
    seen = stop()
    print(
        f"\n{killed} killed within {took:.2f} s, {finished} had ended, {mixed} between the two renames; "
        f"{len(seen.failed)} of {seen.done} requests failed (seed {SEED})"
    )
    assert seen.done > KILLS and seen.failed == []
