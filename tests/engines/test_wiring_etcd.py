"""The environment files of `lbha wiring etcd`, given to real etcd: three bootstrap, a fourth joins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbha import config
from lbha.discovery import discover
from lbha.discovery.etcd_env import parse_env
from lbha.wiring import PIECES
from lbha.wiring.gather import Node

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="etcd is not installed")

SUBNET = f"127.{os.getpid() >> 8 & 127 | 64}.{os.getpid() & 255}"
"""Loopback addresses of this run alone; lbha.toml gives them to nodes."""

PORT = 22379


def document(nodes: int, backends: str = "nodes") -> str:
    listed = "".join(f'cp{n} = "{SUBNET}.{n}"\n' for n in range(1, nodes + 1))
    return (
        f'[cluster]\nname = "wired"\nvip = "10.0.0.100"\n[nodes]\n{listed}'
        f'[services.etcd]\nkind = "etcd"\ntarget_port = {PORT}\nbackends = "{backends}"\n'
    )


class Members:
    """etcd processes whose only configuration is their environment file, as under Debian's unit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, text: str) -> None:
        """The file as it is made; only its data goes below the test's own directory."""
        text = text.replace("/var/lib/etcd/default", str(self.directory / name))
        (self.directory / f"{name}.env").write_text(text)
        environment = {"PATH": os.environ["PATH"], **parse_env(text)}
        with (self.directory / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(["etcd"], env=environment, stdout=log, stderr=log)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["etcdctl", f"--endpoints=http://{SUBNET}.1:{PORT}", *arguments]
        environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)

    def listed(self) -> dict[str, bool]:
        """Each started member's name, and whether it has a vote."""
        answer = self.ctl("member", "list", "-w", "json")
        found = json.loads(answer.stdout)["members"] if answer.returncode == 0 else []
        return {each["name"]: not each.get("isLearner") for each in found if each.get("name")}


def eventually(holds: Callable[[], object], seconds: float = 45.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    made = Members(tmp_path)
    yield made
    for process in made.processes.values():
        process.kill()
        process.wait()


def test_three_reach_a_quorum_and_a_fourth_joins_as_the_steps_say(members: Members) -> None:
    files = PIECES["etcd"](config.parse(document(3)))
    for n in (1, 2, 3):
        members.start(f"cp{n}", files[f"etcd/new/cp{n}.env"])
    eventually(lambda: members.listed() == {"cp1": True, "cp2": True, "cp3": True})
    assert members.ctl("put", "key", "value").returncode == 0, "a quorum"

    grown = PIECES["etcd"](config.parse(document(4)))
    (add,) = [line for line in grown["etcd/add-member.txt"].splitlines() if "member add cp4" in line]
    words = add.lstrip("# ").split()
    assert words[0] == "etcdctl"
    # etcd refuses until all members have been connected for 5 s.
    eventually(lambda: members.ctl(*words[1:]).returncode == 0)
    members.start("cp4", grown["etcd/existing/cp4.env"])
    eventually(lambda: members.listed().get("cp4") is False)
    found = json.loads(members.ctl("member", "list", "-w", "json").stdout)["members"]
    (learner,) = [f"{each['ID']:x}" for each in found if each.get("isLearner")]
    eventually(lambda: members.ctl("member", "promote", learner).returncode == 0)
    assert members.listed() == {f"cp{n}": True for n in (1, 2, 3, 4)}

    # `lbha wiring --check` sees each at its own address.
    pids = {f"process {process.pid}": name for name, process in members.processes.items()}
    running = {
        pids[each.source]: each.urls
        for each in Node(members.directory, processes=True).look().etcd
        if each.source in pids
    }
    assert running == {
        f"cp{n}": (f"http://{SUBNET}.{n}:{PORT}", f"http://{SUBNET}.{n}:{PORT + 1}") for n in (1, 2, 3, 4)
    }

    # lbha's own discovery, from the file of any member.
    for name in ("cp1", "cp4"):
        cluster = config.parse(document(4, f"etcd-env:{members.directory / name}.env"))
        pool = discover(cluster, None)["etcd"]
        assert [each.name for each in pool.backends] == [f"cp{n}" for n in range(1, 4 + (name == "cp4"))]
