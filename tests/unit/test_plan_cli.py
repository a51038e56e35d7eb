"""`lbha plan` through its command: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lbha.cli.plan import command
from lbha.errors import LbhaError


@pytest.fixture
def file(smallest: str, tmp_path: Path) -> Path:
    path = tmp_path / "lbha.toml"
    path.write_text(smallest)
    return path


def plan(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(each) for each in arguments], standalone_mode=False)
    if isinstance(result.exception, LbhaError):
        raise result.exception
    return result


def drill(path: Path, gap_ms: float) -> Path:
    """A file as the drill writes it, with what is not read."""
    run = {"fault": "haproxy-kill", "setup": "lbha-agent", "gap_ms": gap_ms, "client_lag_ms": 4.0}
    path.write_text(json.dumps([run | {"recovered": True, "run": 1, "node": "cp1", "errors": {"reset": 1}}]))
    return path


def test_bounds_and_proof(file: Path) -> None:
    done = plan("-c", file)
    assert done.return_value == 0, done.output
    assert "mode agent" in done.output and "mode script" in done.output
    assert "6 × 0.1 s: down_timer_adverts × advert_interval" in done.output
    assert "mode agent, failback off, 3 nodes: 9,800 situations, all right" in done.output
    assert "mode script" not in plan("-c", file, "--mode", "agent").output


def test_a_reader_who_has_seen_enough_is_no_failure(file: Path) -> None:
    """`lbha plan | head`: 1 would say that the wrong node may be elected."""
    program = [sys.executable, "-m", "lbha", "plan", "-c", str(file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert (running.wait(20), running.stderr.read()) == (0, b"")


def test_a_drill_within_and_above(file: Path, tmp_path: Path) -> None:
    within = plan("-c", file, "--drill", drill(tmp_path / "a.json", 80.0))
    assert within.return_value == 0 and "0.08 (0.08)" in within.output and "ABOVE" not in within.output
    above = plan("-c", file, "--drill", drill(tmp_path / "b.json", 900.0))
    assert above.return_value == 1 and "ABOVE in 1 of 1" in " ".join(above.output.split())


def test_json(file: Path, tmp_path: Path) -> None:
    told = json.loads(plan("-c", file, "--json", "--drill", drill(tmp_path / "a.json", 80.0)).output)
    first = told["faults"][0]
    assert first["bound"]["fault"] == "haproxy-kill" and first["measured"]["worst"] == 0.08
    assert first["bound"]["parts"][0]["stage"] == "detection" and first["bound"]["parts"][0]["source"]
    assert {proof["wrong"] for proof in told["proofs"]} == {None}
    told = json.loads(plan("-c", file, "--json", "--against", file).output)
    assert [step["node"] for step in told["steps"]] == ["cp3", "cp2", "cp1"]


def test_against(file: Path, smallest: str, tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    new.write_text(smallest.replace('cp3 = "10.0.0.13"', 'cp3 = "10.0.0.13"\ncp4 = "10.0.0.14"'))
    rolled = plan("-c", file, "--against", new)
    assert rolled.return_value == 0 and "the order, one node after the other" in rolled.output
    new.write_text(smallest.replace("10.0.0.100", "10.0.0.101"))
    refused = plan("-c", file, "--against", new)
    assert refused.return_value == 1
    assert "refused node by node: first VIP 10.0.0.100 -> 10.0.0.101" in refused.output
    assert "the safe way: all at once" in refused.output


def test_misuse(file: Path, tmp_path: Path) -> None:
    assert "goes without" in str(plan("-c", file, "--against", file, "--drill", file).exception)
    with pytest.raises(LbhaError, match="No such file"):
        plan("-c", file, "--drill", tmp_path / "absent")
    with pytest.raises(LbhaError, match=r"absent\.toml") as refused:
        plan("-c", file, "--against", tmp_path / "absent.toml")
    assert refused.value.exit_code == 2
