"""What the agent's sockets are tested against: an agent without a loop, clusters on loopback, certificates."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from lbha import config, pki
from lbha.agent import peers as peers_module
from lbha.agent.api import Remote
from lbha.agent.carried import HeardConnections
from lbha.agent.metrics import Counters
from lbha.agent.peer_tls import Certificates
from lbha.agent.peers import PeerWatch
from lbha.errors import LbhaError
from lbha.facts import (
    Decision,
    Drain,
    EtcdFacts,
    HaproxyFacts,
    OldWorker,
    Peer,
    PoolFacts,
    Report,
    Server,
    Status,
    Term,
    VrrpFacts,
)
from lbha.model import Cluster, Endpoint, Peers

_NETS = itertools.count(random.randrange(1, 60000))
"""The two middle bytes of 127.A.B.x: a loopback net for each cluster."""


def report(node: str, score: int = 115) -> Report:
    terms = (
        Term("order", 23, True, "first of three"),
        Term("local", 23, True, "apiserver and etcd answer"),
        Term("holder", 69, True, "it holds the VIP"),
    )
    decision = Decision(True, score, 100, terms, "serves")
    return Report(node, time.time(), "0.1.0", "f" * 64, True, decision, False, VrrpFacts("MASTER", 100 + score))


class Events:
    def last(self, count: int) -> list[dict[str, str]]:
        return [{"kind": "moved"}] * min(count, 3)


class StandIn:
    """Keeps what it was asked to do; refuses where the reason is "refuse", breaks where it is "break"."""

    def __init__(self, node: str = "cp1") -> None:
        self.node = node
        self.score = 115
        self.holds = True
        self.counters = Counters()
        self.events = Events()
        self.calls: list[Any] = []
        self.carried: Callable[[str], Awaitable[bytes]] | None = None

    def report(self) -> Report:
        return replace(report(self.node, self.score), holds_vip=self.holds)

    def status(self) -> Status:
        server = Server("etcd", "cp1", Endpoint("10.0.0.11", 2379), "UP", "L7OK", 1.0, 4)
        down = replace(server, name='c"p\\2', status="DOWN")
        return Status(
            cluster="prod",
            vips=("10.0.0.100",),
            report=self.report(),
            started=1.0,
            haproxy=HaproxyFacts(None, 7, {"etcd": 1}, (server, down)),
            etcd=(EtcdFacts("etcd", True, 1.0, ()), EtcdFacts("other", None, 1.0, ())),
            pools=(PoolFacts("etcd", 3, 12.5, "no answer"), PoolFacts("new", 3, None, "never")),
            peers=(Peer("cp2", report("cp2"), 5.0, None), Peer("cp3")),
            peers_off=None,
            drain=Drain(1.0, None, "maintenance"),
            quarantined=0.0,
            applied=None,
            refused=None,
            old_workers=(OldWorker(9, 60.0, 2),),
            lag_ms=1.5,
        )

    async def connections(self, since: str) -> bytes:
        if self.carried is None:
            raise LbhaError(f"{self.node} does not hold the VIP")
        self.calls.append(("connections", since))
        return await self.carried(since)

    async def drain(self, until: float | None, reason: str, force: bool, until_boot: bool) -> None:
        if reason == "refuse":
            raise LbhaError("nobody could take over")
        if reason == "break":
            raise RuntimeError("a secret of the agent")
        self.calls.append(("drain", until, reason, force))

    async def undrain(self) -> None:
        self.calls.append("undrain")

    async def set_server(self, service: str, server: str, state: str, force: bool) -> str:
        self.calls.append((service, server, state, force))
        return f"{service}/{server}: {state}"


class Site:
    """A cluster on loopback, with certificates of its own below `directory`."""

    def __init__(self, directory: Path, smallest: str, *, days: float = 30) -> None:
        net = next(_NETS)
        text = smallest.replace("10.0.0.1", f"127.{80 + net % 40}.{net // 40 % 250}.1")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cluster = config.parse(
            text.replace(f'vip  = "127.{80 + net % 40}.{net // 40 % 250}.100"', 'vip = "10.0.0.100"')
        )
        self.directory = directory
        self.cluster: Cluster = replace(cluster, peers=replace(cluster.peers, port=port))
        pki.init(self.cluster, directory, days=days)  # type: ignore[arg-type]

    def of(self, node: str, certificates_of: str | None = None) -> Cluster:
        """The cluster as one node reads it: the same file, and that node's own certificates."""
        place = self.directory / (certificates_of or node)
        files = (str(place / name) for name in ("ca.crt", "node.crt", "node.key"))
        return replace(self.cluster, peers=Peers(self.cluster.peers.port, *files))

    def certificates(self, node: str, certificates_of: str | None = None) -> Certificates:
        owner = certificates_of or node
        return Certificates(self.of(node, owner), self.cluster.node(owner))

    def remote(self, agent: StandIn, certificates: Certificates | None = None) -> Remote:
        node = self.cluster.node(agent.node)
        return Remote(agent, self.of(agent.node), node, certificates or self.certificates(agent.node))

    def watch(
        self,
        node: str,
        changed: Any = lambda: None,
        certificates: Certificates | None = None,
        heard: HeardConnections | None = None,
    ) -> PeerWatch:
        own = certificates or self.certificates(node)
        return PeerWatch(self.of(node), self.cluster.node(node), own, changed, heard)

    def at(self, node: str) -> tuple[str, int]:
        return self.cluster.node(node).address, self.cluster.peers.port


@contextlib.asynccontextmanager
async def running(*services: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """All of them at once, cancelled at the end; a failure of one is the test's."""
    tasks = [asyncio.create_task(service) for service in services]
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


async def until(watch: PeerWatch, node: str, said: str | None, seconds: float = 5.0) -> Peer:
    """The peer as soon as its problem holds `said`, or is None."""
    end = time.monotonic() + seconds
    while True:
        (peer,) = (each for each in watch.peers if each.node == node)
        if peer.problem == said or (said and peer.problem and said in peer.problem):
            return peer
        assert time.monotonic() < end, peer
        await asyncio.sleep(0.02)


def hurry(monkeypatch: Any) -> None:
    """Ask each 50 ms."""
    monkeypatch.setattr(peers_module, "PERIOD", 0.05)
