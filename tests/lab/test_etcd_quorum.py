"""etcd loses members, its leader, its quorum, its space: the pool and the words follow. Needs root.

The outcomes are the table of docs/etcd-quorum.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from lab_tools import eventually, holder, other

from lbha.agent.client import ask
from lbha.agent.problems import problems
from lbha.facts import Status
from lbha.haproxy_socket import Socket
from lbha.haproxy_stat import servers
from lbha.lab import lab, processes
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import data_directory, environment, run_directory, units

_CUT = """
table inet cut {
    chain in { type filter hook input priority 0; tcp dport 2380 drop; tcp sport 2380 drop; }
    chain out { type filter hook output priority 0; tcp dport 2380 drop; tcp sport 2380 drop; }
}
"""


@pytest.fixture(scope="module")
def running(lab_root: Path) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    return lab.up("quorum", nodes=3, setup="lbha-agent")


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest; healed and at rest again afterwards."""
    lab.wait_healthy(running, 60)
    yield running
    lab.heal(running)
    lab.wait_healthy(running, 60)


def etcdctl(
    spec: LabSpec, *words: str, seconds: float = 2.0, at: LabNode | None = None
) -> subprocess.CompletedProcess[str]:
    """Through the VIP, as a client does, or past it `at` one member."""
    end = f"{at.address}:2379" if at else f"{spec.vip}:{spec.etcd_port}"
    argv = [
        "etcdctl", f"--endpoints=https://{end}", f"--command-timeout={seconds}s",
        f"--cacert={spec.ca}", f"--cert={spec.client_cert}", f"--key={spec.client_key}", *words,
    ]  # fmt: skip
    command = lab.command_in(spec, "client", ["env", "ETCDCTL_API=3", *argv])
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def put(spec: LabSpec, value: str) -> bool:
    return etcdctl(spec, "put", "key", value).returncode == 0


def read(spec: LabSpec) -> str:
    """A serializable read: of what the member itself has."""
    return etcdctl(spec, "get", "key", "--consistency=s", "--print-value-only").stdout.strip()


def member(of: LabNode, seen_by: LabNode) -> tuple[str, str]:
    """Status and reason of a member in the eyes of a node's haproxy."""
    table = Socket(seen_by.directory / "admin.sock").ask("show stat -1 4 -1")
    found = next(each for each in servers(table, ("etcd",), 0.0) if each.name == of.name)
    return found.status, found.reason


def gone(spec: LabSpec, of: LabNode) -> bool:
    return all(member(of, node)[0] == "DOWN" for node in spec.nodes)


def agent_status(node: LabNode) -> Status:
    return ask(run_directory(node), "GET", "/status", type=Status)


def told(node: LabNode) -> list[str]:
    status = agent_status(node)
    return [problem.text for problem in problems(status, status.report.at)]


def test_without_a_quorum_reads_go_on_and_everybody_is_told(spec: LabSpec) -> None:
    before, began = holder(spec), time.time()
    assert put(spec, "before")
    lab.inject(spec, "etcd-quorum-loss", before.name)
    eventually("the message", lambda: any("etcd has lost its quorum, since" in text for text in told(before)))
    (facts,) = agent_status(before).etcd
    assert facts.quorum is False and began <= facts.since < began + 5, "dated from the loss itself"
    assert [read(spec) for _ in range(5)] == ["before"] * 5
    refused = etcdctl(spec, "put", "key", "now", seconds=2.0)
    assert (refused.returncode != 0 and "deadline exceeded" in refused.stderr) or "timed out" in refused.stderr
    assert holder(spec) == before, "a lost quorum is no reason to move the VIP"
    lab.heal(spec)
    eventually("writes succeed again", lambda: put(spec, "after"), 10)
    eventually("the message ends", lambda: not any("quorum" in text for text in told(before)), 10)
    assert read(spec) == "after"


def test_a_leader_crash_is_no_lost_quorum(spec: LabSpec) -> None:
    node = holder(spec)
    log = spec.log / f"{node.name}-agent.log"
    before = log.read_text().count("quorum-lost")
    lab.inject(spec, "etcd-leader-kill")
    eventually("another member leads", lambda: put(spec, "led"), 10)
    time.sleep(3.0)
    assert log.read_text().count("quorum-lost") == before


def test_a_member_that_lost_the_others_leaves_the_pool_and_returns(spec: LabSpec) -> None:
    victim = other(spec, holder(spec))
    with rules(victim, _CUT):
        eventually("it leaves every pool", lambda: gone(spec, victim), 20)
        assert member(victim, holder(spec))[1].startswith("L7")
        assert put(spec, "without it") and read(spec) == "without it"
    eventually("it returns", lambda: member(victim, holder(spec))[0] == "UP", 20)


def test_a_frozen_member_leaves_the_pool_and_returns(spec: LabSpec) -> None:
    victim = other(spec, holder(spec))
    frozen = [pid for pid in processes.in_namespaces([victim.netns]) if program(pid) == "etcd"]
    processes.kill(frozen, signal.SIGSTOP)
    try:
        eventually("it leaves every pool", lambda: gone(spec, victim), 20)
        assert put(spec, "without it")
    finally:
        processes.kill(frozen, signal.SIGCONT)
    eventually("it returns", lambda: member(victim, holder(spec))[0] == "UP", 20)


def test_out_of_space_the_pool_stays_and_the_alarm_is_told(spec: LabSpec) -> None:
    node = holder(spec)
    assert put(spec, "before")
    activate = '{"action": "ACTIVATE", "memberID": "0", "alarm": "NOSPACE"}'
    argv = ["curl", "-sf", "--cacert", str(spec.ca), "--cert", str(spec.client_cert)]
    argv += ["--key", str(spec.client_key), "-d", activate]
    argv.append(f"https://{spec.vip}:{spec.etcd_port}/v3/maintenance/alarm")
    subprocess.run(lab.command_in(spec, "client", argv), check=True, timeout=10, stdout=subprocess.DEVNULL)
    try:
        eventually("the alarm is told", lambda: any("the alarm NOSPACE" in text for text in told(node)))
        assert "database space exceeded" in etcdctl(spec, "put", "key", "now").stderr
        assert read(spec) == "before"
        assert [member(each, node)[0] for each in spec.nodes] == ["UP"] * 3
    finally:
        etcdctl(spec, "alarm", "disarm")
    eventually("the alarm ends", lambda: not any("alarm" in text for text in told(node)))
    assert put(spec, "after")


def test_a_member_with_another_authority_s_certificate_leaves_the_pool(spec: LabSpec, tmp_path: Path) -> None:
    node, victim = holder(spec), other(spec, holder(spec))
    cert, key = tmp_path / "strange.crt", tmp_path / "strange.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", f"/CN={victim.name}", "-addext", f"subjectAltName=IP:{victim.address}"]
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    lab.inject(spec, "etcd-kill", victim.name)
    with etcd(spec, victim, f"--cert-file={cert}", f"--key-file={key}"):
        eventually("it leaves every pool", lambda: gone(spec, victim), 20)
        eventually("for that reason", lambda: member(victim, node)[1].startswith("L6"))
        assert put(spec, "without it") and read(spec) == "without it"


def test_a_learner_gets_no_connections_until_it_is_promoted(spec: LabSpec) -> None:
    node, victim = holder(spec), other(spec, holder(spec))
    lab.inject(spec, "etcd-kill", victim.name)
    eventually("it leaves every pool", lambda: gone(spec, victim), 20)
    dead = identity(spec, victim, node)
    assert dead is not None and etcdctl(spec, "member", "remove", dead).returncode == 0
    peer = f"--peer-urls=https://{victim.address}:2380"
    eventually(
        "etcd takes it as a learner",
        lambda: etcdctl(spec, "member", "add", victim.name, "--learner", peer).returncode == 0,
    )
    shutil.rmtree(data_directory(spec.name) / victim.name)
    with etcd(spec, victim, "--initial-cluster-state=existing"):
        eventually("it runs", lambda: learner(node, victim) is True, 20)
        if member(victim, node)[0] == "UP":  # etcd 3.4: /health of a learner is as of a voter
            eventually("that is told", lambda: any("is a learner" in text for text in told(node)))
        # Through the VIP, haproxy would choose the learner, which has the fewest connections and refuses.
        eventually("it is listed", lambda: identity(spec, victim, node) is not None)
        eventually("it is promoted", lambda: promoted(spec, identity(spec, victim, node) or "", node))
        eventually("it enters the pool", lambda: member(victim, node)[0] == "UP", 20)
        eventually("the agent knows", lambda: learner(node, victim) is False)


def identity(spec: LabSpec, node: LabNode, at: LabNode) -> str | None:
    """What etcd calls the node's member; None while it is not listed by its name."""
    listed = etcdctl(spec, "member", "list", at=at).stdout.splitlines()
    return next((line.split(",")[0] for line in listed if node.name in line), None)


def promoted(spec: LabSpec, identity: str, at: LabNode) -> bool:
    return etcdctl(spec, "member", "promote", identity, at=at).returncode == 0


def learner(asked: LabNode, of: LabNode) -> bool | None:
    """Whether a member is one, as an agent knows; None while it does not answer."""
    (facts,) = agent_status(asked).etcd
    found = next((each for each in facts.members if each.endpoint.address == of.address), None)
    return None if found is None or found.problem else found.learner


@contextmanager
def etcd(spec: LabSpec, node: LabNode, *flags: str) -> Iterator[None]:
    """The node's member with other flags (the last one of a name counts), in the place of the lab's own."""
    (argv,) = [unit.argv for unit in units(spec) if (unit.node, unit.name) == (node.name, "etcd")]
    with (spec.log / f"{node.name}-etcd-test.log").open("ab") as log:
        process = subprocess.Popen([*argv, *flags], stdout=log, stderr=log, env=os.environ | environment(spec))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def program(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@contextmanager
def rules(node: LabNode, text: str) -> Iterator[None]:
    """nftables rules of a node, for a while."""
    nft = ["ip", "netns", "exec", node.netns, "nft"]
    subprocess.run([*nft, "-f", "-"], input=text, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*nft, "delete", "table", "inet", "cut"], check=True)
