"""Each fault does what its name says, and heal cures it: on three real nodes. Needs root."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from lab_tools import connects, eventually, holder, in_netns, moved_from, other, own_addresses, unit

from lbha.errors import LabError
from lbha.lab import lab, processes, status
from lbha.lab.control import Report, UnitState, ask
from lbha.lab.faults import BUSY_LOOPS, KINDS
from lbha.lab.holders import HolderWatch
from lbha.lab.netns import CLIENT_ADDRESS
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import APISERVER_PORT, run_directory
from lbha.trackers import FRESH, SOCKET


@pytest.fixture(scope="module")
def running(lab_root: Path) -> LabSpec:  # noqa: ARG001 (it ends the lab)
    return lab.up("faults", nodes=3)


@pytest.fixture
def spec(running: LabSpec) -> Iterator[LabSpec]:
    """The lab at rest; healed and at rest again afterwards, which is half of each test."""
    lab.wait_healthy(running, 60)
    yield running
    lab.heal(running)
    lab.wait_healthy(running, 60)
    assert ask(running, Report()).faults == ()


def state(spec: LabSpec, node: LabNode, name: str) -> UnitState:
    return unit(spec, node, name).state


def of_unit(node: LabNode, program: str) -> list[int]:
    """The processes of that program on the node."""
    return [pid for pid in processes.in_namespaces([node.netns]) if program_of(pid) == program]


def letters(pids: list[int]) -> set[str]:
    """Process states: T is stopped. Those that have ended have none."""
    return {processes.state(pid) for pid in pids} - {""}


def program_of(pid: int) -> str:
    """Its name; empty when the process ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def server(spec: LabSpec, judge: LabNode, backend: str, name: str) -> tuple[str, str]:
    """Status and last check of a server in the eyes of one haproxy."""
    node = next(node for node in status.gather(spec).nodes if node.name == judge.name)
    found = next(s for s in node.servers or () if (s.backend, s.server) == (backend, name))
    return found.status, found.check


def test_haproxy_kill(spec: LabSpec) -> None:
    before = holder(spec)
    assert len(of_unit(before, "haproxy")) >= 2, "master and worker"
    assert lab.inject(spec, "haproxy-kill") == before.name, "the holder is hit by default"
    eventually("its haproxy is gone", lambda: not of_unit(before, "haproxy"), 2)
    eventually("the VIP moves", lambda: moved_from(spec, before))
    assert not of_unit(before, "haproxy"), "it stays down until heal"
    assert state(spec, before, "haproxy") is UnitState.DOWN


def test_haproxy_freeze(spec: LabSpec) -> None:
    before = holder(spec)
    pids = of_unit(before, "haproxy")
    lab.inject(spec, "haproxy-freeze", "holder")
    assert letters(pids) == {"T"}
    eventually("the VIP moves", lambda: moved_from(spec, before))
    lab.heal(spec)
    assert of_unit(before, "haproxy") == pids, "the same processes go on"
    assert "T" not in letters(pids)


def test_keepalived_kill(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "keepalived-kill")
    eventually("keepalived is gone", lambda: not of_unit(before, "keepalived"), 2)
    assert spec.vip in own_addresses(before.netns), "nobody was left to remove the VIP"
    eventually("another node takes it too", lambda: len(lab.holders(spec)) == 2)
    eventually("the agent removes the stale one", lambda: moved_from(spec, before), 4)


def test_keepalived_stop(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "keepalived-stop")
    eventually("the VIP is handed over", lambda: moved_from(spec, before), 3)
    eventually("keepalived is gone", lambda: not of_unit(before, "keepalived"), 5)


def test_apiserver_kill(spec: LabSpec) -> None:
    hit = spec.nodes[1]
    assert lab.inject(spec, "apiserver-kill", hit.name) == hit.name
    eventually("nobody listens", lambda: not connects(spec.client_netns, hit.address, APISERVER_PORT), 2)
    for judge in spec.nodes:
        eventually("it is DOWN", lambda j=judge: server(spec, j, "apiserver", hit.name)[0] == "DOWN")


def test_apiserver_freeze(spec: LabSpec) -> None:
    hit = spec.nodes[1]
    lab.inject(spec, "apiserver-freeze", hit.name)
    assert connects(spec.client_netns, hit.address, APISERVER_PORT), "the kernel still accepts"
    eventually("it is DOWN", lambda: server(spec, hit, "apiserver", hit.name)[0] == "DOWN", 20)
    assert server(spec, hit, "apiserver.open", hit.name)[0] == "UP", "a TCP check sees nothing"


def test_apiserver_error(spec: LabSpec) -> None:
    hit = spec.nodes[2]
    lab.inject(spec, "apiserver-error", hit.name)
    eventually("it is DOWN", lambda: server(spec, hit, "apiserver", hit.name) == ("DOWN", "L7STS"))
    assert state(spec, hit, "apiserver") is UnitState.RUNNING


def test_apiserver_unready(spec: LabSpec) -> None:
    hit = spec.nodes[2]
    lab.inject(spec, "apiserver-unready", hit.name)
    eventually("it is DOWN", lambda: server(spec, hit, "apiserver", hit.name) == ("DOWN", "L7STS"))
    lab.heal(spec)
    eventually("it is UP again", lambda: server(spec, hit, "apiserver", hit.name)[0] == "UP")


def test_etcd_kill(spec: LabSpec) -> None:
    hit = spec.nodes[2]
    lab.inject(spec, "etcd-kill", hit.name)
    eventually("etcd is gone", lambda: not of_unit(hit, "etcd"), 2)
    eventually("the others have a leader", lambda: status.etcd_leader(spec) not in (None, hit.name))


def test_etcd_leader_kill(spec: LabSpec) -> None:
    leader = status.etcd_leader(spec)
    assert lab.inject(spec, "etcd-leader-kill") == leader
    eventually("another member leads", lambda: status.etcd_leader(spec) not in (None, leader))


def test_etcd_quorum_loss(spec: LabSpec) -> None:
    kept = spec.nodes[0]
    assert lab.inject(spec, "etcd-quorum-loss", kept.name) == "cp2,cp3"
    assert of_unit(kept, "etcd")
    eventually("nobody leads", lambda: status.etcd_leader(spec) is None)


def test_link_down(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "link-down")
    assert not connects(spec.client_netns, before.address, APISERVER_PORT)
    eventually("the VIP moves", lambda: moved_from(spec, before))
    assert of_unit(before, "haproxy"), "its processes run"


def test_power_off(spec: LabSpec) -> None:
    before = holder(spec)
    lab.inject(spec, "power-off")
    assert not [pid for pid in processes.in_namespaces([before.netns]) if letters([pid]) != {"Z"}]
    assert not run_directory(before).exists(), "memory is lost"
    eventually("the VIP moves", lambda: moved_from(spec, before), 5)
    lab.heal(spec)
    lab.wait_healthy(spec, 60)
    assert spec.vip not in own_addresses(before.netns), "a booted node brings no VIP with it"


def test_partition(spec: LabSpec) -> None:
    alone = holder(spec)
    peer = other(spec, alone)
    lab.inject(spec, "partition")
    assert not connects(alone.netns, peer.address, APISERVER_PORT)
    assert not connects(peer.netns, alone.address, APISERVER_PORT)
    for node in spec.nodes:
        assert connects(spec.client_netns, node.address, APISERVER_PORT), "the client reaches both sides"
    eventually("each side has a holder", lambda: len(lab.holders(spec)) == 2)


def test_partition_one_way(spec: LabSpec) -> None:
    deaf = holder(spec)
    peer = other(spec, deaf)
    lab.inject(spec, "partition-one-way")
    assert not arrives(deaf, peer), "the others do not hear it"
    assert arrives(peer, deaf), "it hears them"
    assert connects(deaf.netns, CLIENT_ADDRESS, 1) is False
    assert connects(spec.client_netns, deaf.address, APISERVER_PORT)


def arrives(sender: LabNode, receiver: LabNode) -> bool:
    """Whether a datagram from one node reaches the other."""
    from concurrent.futures import ThreadPoolExecutor

    listen = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)\n"
        f"s.bind(({receiver.address!r}, 7777))\n"
        "try: print(s.recv(9).decode())\n"
        "except TimeoutError: print('nothing')\n"
    )
    send = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"for _ in range(20): s.sendto(b'word', ({receiver.address!r}, 7777)); time.sleep(0.1)\n"
    )
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(in_netns, receiver.netns, listen)
        in_netns(sender.netns, send)
        return heard.result() == "word"


def test_cpu_stress(spec: LabSpec) -> None:
    hit = spec.nodes[2]
    lab.inject(spec, "cpu-stress", hit.name)
    eventually("the loops run", lambda: len(of_unit(hit, "sh")) == BUSY_LOOPS, 5)
    lab.heal(spec)
    eventually("they end", lambda: not of_unit(hit, "sh"), 5)


@contextmanager
def nothing_moves(spec: LabSpec) -> Iterator[None]:
    with closing(HolderWatch(spec)) as watch:
        eventually("holders are watched", watch.samples, 5)
        yield
        assert len(watch.samples()) == 1, watch.samples()


def test_agent_kill(spec: LabSpec) -> None:
    hit = holder(spec)
    with nothing_moves(spec):
        lab.inject(spec, "agent-kill")
        assert state(spec, hit, "agent") is UnitState.DOWN
        time.sleep(FRESH + 3)  # By then the track script has asked haproxy itself, twice.
        lab.heal(spec)
        lab.wait_healthy(spec, 60)


def test_agent_freeze(spec: LabSpec) -> None:
    pid = unit(spec, holder(spec), "agent").pid
    assert pid
    with nothing_moves(spec):
        lab.inject(spec, "agent-freeze")
        eventually("it stands still", lambda: letters([pid]) == {"T"}, 2)
        time.sleep(10)
        lab.heal(spec)
        time.sleep(1)


def test_agent_restart(spec: LabSpec) -> None:
    hit = holder(spec)
    before = unit(spec, hit, "agent").pid
    with nothing_moves(spec):
        lab.inject(spec, "agent-restart")
        eventually("another process runs", lambda: unit(spec, hit, "agent").pid not in (before, None))
        lab.wait_healthy(spec, 60)
        time.sleep(2)


def test_drain(spec: LabSpec) -> None:
    before = holder(spec)
    if not (run_directory(before) / SOCKET).exists():
        pytest.skip("the agent takes no commands yet")
    lab.inject(spec, "drain")
    eventually("the VIP moves", lambda: moved_from(spec, before))
    lab.heal(spec)
    lab.wait_healthy(spec, 60)
    assert moved_from(spec, before), "it does not come back by itself"


def test_faults_add_up_and_one_heal_undoes_them(spec: LabSpec) -> None:
    lab.inject(spec, "etcd-kill", "cp3")
    lab.inject(spec, "haproxy-freeze", "cp2")
    lab.inject(spec, "partition", "cp3")
    told = status.gather(spec)
    assert {(fault.kind, fault.node) for fault in told.faults} == {
        ("etcd-kill", "cp3"),
        ("haproxy-freeze", "cp2"),
        ("partition", "cp3"),
    }
    assert told.nodes[1].servers is None and told.nodes[2].member is None


@pytest.mark.parametrize(
    ("kind", "node", "says"),
    [
        ("earthquake", None, "haproxy-kill"),
        ("haproxy-kill", "cp9", "cp1, cp2, cp3"),
        ("etcd-leader-kill", "cp1", "etcd-kill"),
    ],
)
def test_what_cannot_be_broken(running: LabSpec, kind: str, node: str | None, says: str) -> None:
    with pytest.raises(LabError, match=says):
        lab.inject(running, kind, node)
    assert ask(running, Report()).faults == ()


def test_every_fault_is_tested() -> None:
    tested = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert set(KINDS) <= tested
