"""The old holder ends the sessions of the VIP's clients, and nobody else's: real haproxy, real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from apply_host import ADDRESS, PORT, VIP, Host, wait_for

from lbha.haproxy_socket import Socket
from lbha.sessions import sessions, workers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SECOND = "10.99.7.3"
"""An address of the node that stays."""

_STREAMS = """
import asyncio, json, sys, time
async def watch(reader):
    try: await reader.read(1)
    except OSError: pass
    return time.monotonic()
async def main(number, source, *targets):
    ends = []
    for target in targets:
        for _ in range(number):
            local = {"local_addr": (source, 0)} if source else {}
            reader, writer = await asyncio.open_connection(target, int(PORT), **local)
            ends.append((target, asyncio.create_task(watch(reader)), writer))
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(json.dumps([(t, task.result() if task.done() else None) for t, task, _ in ends]), flush=True)
PORT = sys.argv[1]
asyncio.run(main(int(sys.argv[2]), sys.argv[3], *sys.argv[4:]))
"""

_HAND_OVER = """
import json, sys, time
from pathlib import Path
from lbha import config
from lbha.check.holder import holds
from lbha.handover import hand_over
from lbha.pause import While
cluster = config.load(Path(sys.argv[1]))
pause = While(lambda: not holds(cluster.vips[0]))
start, cpu = time.monotonic(), time.process_time()
ended = hand_over(cluster, pause)
print(json.dumps([ended, time.monotonic() - start, time.process_time() - cpu]))
"""


class Node(Host):
    """A host whose service also listens on an address that is no VIP, as an own template may have it."""

    def serve(self, rate: int) -> None:
        self.ip("addr", "add", f"{VIP}/32", "dev", "eth0")
        self.ip("addr", "add", f"{SECOND}/32", "dev", "eth0")
        self.configure(extra=f"[failover]\nhandover_rate = {rate}\n")
        assert self.apply().returncode == 0
        text = self.file("haproxy.cfg")
        bind = f"    bind {VIP}:{PORT} transparent\n"
        assert bind in text
        (self.root / "etc/haproxy.cfg").write_text(text.replace(bind, f"{bind}    bind {SECOND}:{PORT}\n"))
        self.start_servers(9001, 9002)
        self.start_haproxy()

    def streams(self, number: int, source: str, *targets: str) -> subprocess.Popen[str]:
        process = self.spawn(
            sys.executable, "-c", _STREAMS, str(PORT), str(number), source, *targets,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout and process.stdout.readline() == "open\n"
        return process

    def hand_over(self) -> subprocess.Popen[str]:
        return self.spawn(sys.executable, "-c", _HAND_OVER, str(self.toml), stdout=subprocess.PIPE)

    def lose_vip(self) -> None:
        self.ip("addr", "del", f"{VIP}/32", "dev", "eth0")


def result(process: subprocess.Popen[str]) -> tuple[int, float]:
    ended, seconds, _ = json.loads(process.communicate(timeout=60)[0])
    return ended, seconds


def ends(streams: subprocess.Popen[str]) -> dict[str, list[float | None]]:
    """When the streams ended, by target."""
    found: dict[str, list[float | None]] = {}
    for target, at in json.loads(streams.communicate("\n", timeout=30)[0]):
        found.setdefault(target, []).append(at)
    return found


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    try:
        yield node
    finally:
        node.close()


def test_all_sessions_of_the_vip_end_paced_and_those_of_another_address_stay(node: Node) -> None:
    node.serve(rate=100)
    streams = node.streams(150, ADDRESS, VIP, SECOND)
    node.lose_vip()
    ended, seconds = result(node.hand_over())
    assert ended == 150
    assert 1.0 < seconds < 6.0, "150 at 100 a second"
    time.sleep(0.2)
    at = ends(streams)
    assert None not in at[VIP]
    assert set(at[SECOND]) == {None}, "another address of the node"
    times = sorted(at[VIP])  # type: ignore[type-var]
    for first, later in zip(times, times[100:], strict=False):
        assert later - first > 0.7, "never much more than the rate"  # type: ignore[operator]


def test_old_workers_are_asked_too(node: Node) -> None:
    node.serve(rate=10_000)
    old = node.streams(30, ADDRESS, VIP, SECOND)
    master = Socket(node.paths.haproxy_master_socket)
    before = workers(master)
    node.haproxy.reload(node.file("haproxy.cfg"))
    wait_for(lambda: set(workers(master)) > set(before), "the old one to live on beside the new")
    new = node.streams(20, ADDRESS, VIP, SECOND)
    node.lose_vip()
    assert result(node.hand_over())[0] == 50
    time.sleep(0.2)
    for streams in (old, new):
        at = ends(streams)
        assert None not in at[VIP] and set(at[SECOND]) == {None}


def test_it_stops_when_the_vip_comes_back(node: Node) -> None:
    node.serve(rate=50)
    streams = node.streams(200, ADDRESS, VIP)
    node.lose_vip()
    handing = node.hand_over()
    time.sleep(1.5)
    node.ip("addr", "add", f"{VIP}/32", "dev", "eth0")
    ended, seconds = result(handing)
    assert 0 < ended < 150 and seconds < 3
    time.sleep(0.2)
    at = ends(streams)[VIP]
    assert sum(each is not None for each in at) == ended


def test_nothing_is_done_while_the_vip_is_here(node: Node) -> None:
    node.serve(rate=1000)
    streams = node.streams(20, ADDRESS, VIP)
    assert result(node.hand_over())[0] == 0
    assert ends(streams)[VIP] == [None] * 20


def test_own_clients_of_the_vip_are_told_as_well(node: Node) -> None:
    """To reach an address of its own host, the kernel gives a client that very address: no FIN would arrive."""
    node.serve(rate=1000)
    streams = node.streams(10, "", VIP)
    node.lose_vip()
    result(node.hand_over())
    time.sleep(0.2)
    assert None not in ends(streams)[VIP]


def test_other_frontends_are_left_alone(node: Node) -> None:
    node.serve(rate=1000)
    streams = node.streams(5, ADDRESS, VIP)
    code = (
        "import socket, sys\ns = socket.create_connection(('127.0.0.1', 8404))\nprint('open', flush=True)\n"
        "sys.stdin.readline()\ns.sendall(b'GET /x HTTP/1.0\\r\\n\\r\\n')\nprint(s.recv(99)[:12])\n"
    )
    metrics = node.spawn(sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert metrics.stdout and metrics.stdout.readline() == "open\n"
    node.lose_vip()
    assert result(node.hand_over())[0] == 5
    assert not [each for each in sessions(Socket(node.paths.haproxy_socket)) if each.frontend == "web"]
    assert "404" in metrics.communicate("\n", timeout=10)[0]
    assert None not in ends(streams)[VIP]
