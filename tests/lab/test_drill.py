"""A whole drill on a real lab, and one that is interrupted. Needs root."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

NETNS = Path("/run/netns")


def lbha(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lbha", *arguments]


def test_a_killed_haproxy_is_measured(lab_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    done = subprocess.run(
        lbha("drill", "--setup", "lbha-script", "--faults", "haproxy-kill", "--json", str(path)),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(path.read_text())
    assert (run["fault"], run["setup"], run["run"]) == ("haproxy-kill", "lbha-script", 1)
    assert run["recovered"] and run["lost_writes"] == 0
    assert run["moved"] and run["two_holders_ms"] < 500
    assert 50 < run["gap_ms"] < 10_000
    assert run["failed"] > 0 and run["errors"]
    assert run["last_failure_ms"] <= run["gap_ms"] + 1_000
    assert run["watches_dead"] == run["watches"], "the killed haproxy carried every watch"
    assert 0 < run["watch_recovery_ms"] < 15_000
    holders = [names for _, names in run["holders"]]
    assert holders[0] == [run["node"]] and len(holders[-1]) == 1 and holders[-1] != holders[0]
    assert "haproxy-kill" in done.stdout and "stand-in" in done.stdout
    assert not list(lab_root.glob("*")), "its own lab is gone"


def test_an_interrupted_drill_leaves_nothing(lab_root: Path) -> None:
    drill = subprocess.Popen(
        lbha("drill", "--faults", "haproxy-kill"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(lab_root.glob(f"d{drill.pid}-*/control.sock")):
            assert time.monotonic() < deadline and drill.poll() is None, "no lab came up"
            time.sleep(0.1)
        drill.send_signal(signal.SIGTERM)
        _, errors = drill.communicate(timeout=60)
    finally:
        drill.kill()
        drill.wait()
    assert drill.returncode == 1
    assert "interrupted" in errors and "Traceback" not in errors
    assert not list(lab_root.glob("*"))
    assert not list(NETNS.glob(f"lbha-d{drill.pid}-*"))
