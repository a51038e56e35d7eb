"""From `lab up` to `lab down`, also when something dies in between. Needs root."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from lab_tools import eventually, lbha, own_addresses, remains

from lbha.errors import LabError, LbhaError
from lbha.lab import lab, processes, status
from lbha.lab.control import Report, UnitReport, UnitState, ask
from lbha.lab.spec import SPEC_FILE, LabSpec
from lbha.lab.units import lbha_program

pytestmark = pytest.mark.usefixtures("lab_root")


def unit(spec: LabSpec, name: str) -> UnitReport:
    (found,) = (unit for unit in ask(spec, Report()).units if (unit.node, unit.name) == ("cp1", name))
    return found


def supervisor(spec: LabSpec) -> int:
    """The process that has no network namespace of the lab but carries its mark."""
    (pid,) = (
        pid
        for pid in processes.marked(spec.directory)
        if b"lbha.lab.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return pid


def test_a_lab_from_the_command_line() -> None:
    done = lbha("lab", "up", "--name", "cli", "--nodes", "1")
    assert done.returncode == 0, done.stderr
    assert "stand-in" in done.stdout
    assert lbha("lab", "list").stdout.split() == ["cli"]

    seen = json.loads(lbha("lab", "status", "--name", "cli", "--json").stdout)
    assert seen["holders"] == ["cp1"] and seen["etcd_leader"] == "cp1" and seen["apiserver"] == "stand-in"
    (node,) = seen["nodes"]
    assert node["vrrp"]["state"] == "MASTER"
    assert {(s["backend"], s["server"]) for s in node["servers"]} >= {("apiserver", "cp1"), ("etcd", "cp1")}
    # "UP 1/3" right after the start: the first check came before the server.
    assert all(s["status"].startswith("UP") for s in node["servers"])
    told = lbha("lab", "status", "--name", "cli").stdout
    assert "held by cp1" in told and "stand-in" in told and "healthy" in told

    check = lbha("lab", "exec", "--name", "cli", "cp1", "--", "sh", "-c", "echo $LBHA_NODE; cat $LBHA_CONFIG")
    assert check.stdout.startswith("cp1\n") and 'vip = "10.77.0.100"' in check.stdout
    again = lbha("lab", "exec", "--name", "cli", "cp1", "--", lbha_program(), "apply")
    assert again.returncode == 0 and "keepalived: unchanged" in again.stdout, again.stderr

    again = lbha("lab", "up", "--name", "cli", "--nodes", "1")
    assert again.returncode == 1 and "lab down --name cli" in again.stderr
    assert lab.holders(lab.load("cli")) == ("cp1",), "a refused start leaves the running lab alone"

    assert "is gone" in lbha("lab", "down", "--name", "cli").stdout
    assert remains("cli") == []
    assert "was not up" in lbha("lab", "down", "--name", "cli").stdout


def test_two_labs_live_side_by_side() -> None:
    one = lab.up("one", nodes=1)
    two = lab.up("two", nodes=1)
    assert lab.names() == ("one", "two")
    lab.inject(one, "power-off", "cp1")
    assert lab.holders(two) == ("cp1",)
    assert status.problems(status.gather(two)) == []
    lab.down("one")
    assert remains("one") == []
    assert status.problems(status.gather(two)) == []
    lab.down("two")
    assert remains("two") == []


def test_down_after_the_supervisor_was_killed() -> None:
    spec = lab.up("orphan", nodes=1)
    os.kill(supervisor(spec), signal.SIGKILL)
    eventually("status says that the supervisor is gone", lambda: status.gather(spec).supervisor)
    assert processes.in_namespaces([spec.nodes[0].netns]), "its children live on"
    assert lab.down("orphan")
    assert remains("orphan") == []


def test_down_after_half_a_start() -> None:
    spec = lab.up("half", nodes=1)
    (spec.directory / SPEC_FILE).unlink()
    spec.control.unlink()
    Path("/run/netns", f"{spec.nodes[0].netns[:-1]}2").touch()  # A namespace that was never mounted.
    assert lab.down("half")
    assert remains("half") == []


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[failover]\nprofile = "sometimes"\n')
    with pytest.raises(LbhaError, match="sometimes"):
        lab.up("bad", nodes=1, overrides=bad)
    assert remains("bad") == []
    bad.write_text('[paths]\nlbha = "/nonexistent/lbha"\n')
    with pytest.raises(LabError, match="could not run the track script"):  # By then the network is there.
        lab.up("bad", nodes=1, overrides=bad)
    assert remains("bad") == []


def test_overrides_reach_the_engines(tmp_path: Path) -> None:
    wishes = tmp_path / "wishes.toml"
    wishes.write_text(
        '[cluster]\nvips = ["10.77.0.100", "fd77::100"]\n'
        "[services.apiserver]\nport = 7443\ncheck = { fall = 7 }\n"
    )
    spec = lab.up("dual", nodes=1, overrides=wishes)
    assert (spec.apiserver_port, spec.etcd_port) == (7443, 2379)
    node = spec.nodes[0]
    assert "fall 7" in (node.directory / "haproxy.cfg").read_text()
    eventually(
        "both VIPs are held",
        lambda: own_addresses(node.netns) == {node.address, node.address6, "10.77.0.100", "fd77::100"},
    )
    lab.down("dual")


def test_units_are_restarted_until_the_start_limit() -> None:
    spec = lab.up("units", nodes=1)
    first = unit(spec, "haproxy")
    assert first.pid
    os.kill(first.pid, signal.SIGKILL)

    def restarted() -> bool:
        now = unit(spec, "haproxy")
        return now.state is UnitState.RUNNING and now.pid not in (None, first.pid)

    eventually("haproxy was restarted", restarted)
    assert unit(spec, "haproxy").restarts == 1
    lab.wait_healthy(spec, 30)

    began = time.monotonic()
    while (now := unit(spec, "apiserver")).state is not UnitState.FAILED:
        assert time.monotonic() - began < 20, "killed again and again, it must be given up"
        if now.pid and now.state is UnitState.RUNNING:
            os.kill(now.pid, signal.SIGKILL)
        time.sleep(0.02)
    with pytest.raises(LabError, match="apiserver of cp1 is failed"):
        lab.wait_healthy(spec, 30)
    lab.heal(spec)
    lab.wait_healthy(spec, 30)
    lab.down("units")
