"""The agent's loop: a fact that changes leads to one snapshot, one judgement, one decision."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import lbha
from lbha import trackers
from lbha.agent.api import Local, Remote
from lbha.agent.carried import Carried, HeardConnections
from lbha.agent.control_plane import ControlPlaneWatch
from lbha.agent.draining import Draining
from lbha.agent.etcd_watch import EtcdWatch
from lbha.agent.events import Events
from lbha.agent.follow import Changed, Follower
from lbha.agent.haproxy_watch import HaproxyWatch
from lbha.agent.metrics import Counters
from lbha.agent.notify import Notifier
from lbha.agent.peer_tls import Certificates
from lbha.agent.peers import PeerWatch
from lbha.agent.reap import Reap
from lbha.agent.record import Record
from lbha.agent.recovery import Recovery
from lbha.agent.resignation import Resignation
from lbha.agent.split_brain import SplitBrain
from lbha.agent.stale_vip import StaleVip
from lbha.agent.vip_watch import VipWatch
from lbha.agent.vrrp_watch import VrrpWatch
from lbha.config import fingerprint
from lbha.errors import LbhaError
from lbha.facts import Applied, Decision, Observation, Report, Status
from lbha.health import Health, Settled, judge
from lbha.keepalived import Keepalived
from lbha.known import known
from lbha.model import Cluster, Endpoint, Kind, Node
from lbha.priority import agent_terms, decide
from lbha.servers import set_server_state
from lbha.timing import TICK
from lbha.trackers import Trackers

TELL_EVERY = 1.0
"""Seconds between two looks for what became different, besides those that a decision causes."""


class _Part(Protocol):
    async def run(self) -> None: ...


class Stopped(Exception):
    """SIGTERM: everything stays as it is."""


class Agent:
    """One node's agent, for as long as lbha.toml says the same. `before` is the one that it follows on."""

    def __init__(
        self,
        cluster: Cluster,
        node: Node,
        config_file: Path,
        load: Callable[[], Cluster],
        notifier: Notifier,
        before: Agent | None = None,
    ) -> None:
        paths, run_dir = cluster.paths, Path(cluster.paths.run_dir)
        state_dir = Path(paths.state_dir)
        same_services = before is not None and before.cluster.services == cluster.services
        self.cluster: Cluster = cluster
        self.node: Node = node
        self.health: Health | None = before.health if before and same_services else None
        self.decision: Decision | None = None
        self.applied: Applied | None = before.applied if before else None
        self.record: Record = Record(state_dir, before.record if before else None)
        self._tell_at = 0.0
        self._notifier = notifier
        self._started: float = before._started if before else time.time()
        self._considered = 0.0
        self._config = fingerprint(cluster)
        self._sizes = agent_terms(len(cluster.nodes), failback=cluster.failover.failback)
        self._index = cluster.nodes.index(node)
        self._trackers = Trackers(run_dir)
        quarantine = cluster.health.quarantine if self._trackers.first_since_boot else 0.0
        self._quarantined_until = time.monotonic() + quarantine
        self._draining = Draining(state_dir, booted=self._trackers.first_since_boot)
        keepalived = Keepalived(paths)
        names = [service.name for service in cluster.services]
        self.haproxy = HaproxyWatch(paths.haproxy_socket, names, self.consider, self.counters.checked)
        self.vip = VipWatch(cluster.vips[0], self._vip_moved)
        self.vrrp = VrrpWatch(run_dir / trackers.FIFO, keepalived, self._vrrp_changed)
        self.stale = StaleVip(
            cluster.vips,
            self.vip,
            keepalived,
            self._somebody_else_has_it,
            partial(self.record.did, "stale-vip"),
        )
        self.etcd = [
            EtcdWatch(service, partial(self._members, service.name), self.consider)
            for service in cluster.services
            if service.kind is Kind.ETCD
        ]
        self.control_plane = ControlPlaneWatch(cluster, node, self._members)
        self.certificates = Certificates(cluster, node)
        self.carried = Carried(cluster)
        heard = HeardConnections()
        self.peers = PeerWatch(cluster, node, self.certificates, self.consider, heard)
        self.recovery = Recovery(cluster, self.vip, self.carried, heard, self.record.recovered)
        self.split = SplitBrain(cluster, node)
        self.resignation = Resignation(cluster, node)
        self.reap = Reap(paths, self.counters.recovered)
        self.follower = Follower(cluster, node, config_file, load, self._on_applied)

    async def run(self) -> None:
        """Until something ends it: Changed, Stopped, or a fault of our own."""
        loop = asyncio.get_running_loop()
        run_dir = self.cluster.paths.run_dir
        trackers.prepare(Path(run_dir))
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        local = Local(self, run_dir)
        remote = Remote(self, self.cluster, self.node, self.certificates)
        self._notifier.ready(f"{self.node.name} of {self.cluster.name}")
        parts: list[_Part] = [self.haproxy, self.vip, self.vrrp, self.stale, *self.etcd, self.follower]
        parts += [self.peers, self.split, self.reap, self.recovery, self.control_plane, local, remote]
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part.run(), name=type(part).__name__)
                group.create_task(self._live(), name="live")
                group.create_task(_until_stopped(), name="signals")
        except ExceptionGroup as group:
            # No except*: what it raises comes in a group again before Python 3.11.4, and Debian 12 has 3.11.2.
            ended, faults = group.split((Changed, Stopped))
            if ended is None or faults is not None:
                raise
            raise ended.exceptions[0] from None

    async def _live(self) -> None:
        """Signs of life, and decisions that only time makes."""
        while True:
            if time.monotonic() - self._considered > TICK:
                self.consider()
            self._notifier.alive()
            if self.decision:
                self._trackers.beat(self.decision.up)
            await asyncio.sleep(TICK)

    def observe(self) -> Observation:
        """The snapshot."""
        now = time.monotonic()
        held = self.vip.look()
        if held:
            self._quarantined_until = now
        facts = self.haproxy.facts
        local: dict[str, bool] = {}
        for server in facts.servers:
            if server.endpoint.address in self.node.addresses:
                local[server.service] = local.get(server.service, False) or server.live
        return Observation(
            at=now,
            haproxy=facts,
            local=local,
            holds_vip=held,
            drained=self._draining.in_force is not None,
            quarantined=now < self._quarantined_until,
        )

    def consider(self) -> None:
        """Observe, judge, decide, tell keepalived; then, without haste, people."""
        now = self._considered = time.monotonic()
        if self.haproxy.facts.problem == "not asked yet":
            return  # What an earlier agent decided stays in force.
        seen = self.observe()
        self.health = judge(self.health or self._adopted(seen.at), seen)
        before = self.decision
        released = self.split.look(
            holds=seen.holds_vip and not self.stale.stale,
            priority=before.priority if before else 0,
            peers=self.peers.peers,
            serving=self.health.serving.value,
        )
        decision = self.decision = decide(self._sizes, self._index, seen, self.health, released)
        self.counters.decided()
        if before is None or (before.up, before.score) != (decision.up, decision.score):
            self._trackers.write(decision)
            self._trackers.beat(decision.up, now=True)
            self._notifier.status(f"priority {decision.priority}: {decision.why}")
            self._tell_at = 0.0
        self.resignation.look(self.report(), self.peers.peers)
        if now >= self._tell_at:
            self._tell_at = now + TELL_EVERY
            self.record.tell(self.status())

    @property
    def counters(self) -> Counters:
        """What has happened since this process started."""
        return self.record.counters

    @property
    def events(self) -> Events:
        """What happened on this node, kept on disk."""
        return self.record.events

    def report(self) -> Report:
        """What the other agents are told. LbhaError before the first decision."""
        if self.decision is None:
            raise LbhaError("the agent has only just started; ask again in a second")
        return Report(
            node=self.node.name,
            at=time.time(),
            version=lbha.__version__,
            config=self._config,
            holds_vip=self.vip.held,
            decision=self.decision,
            drained=self._draining.in_force is not None,
            vrrp=self.vrrp.facts,
            stale=self.stale.stale,
            components=self.control_plane.components,
        )

    def status(self) -> Status:
        """This node, whole. LbhaError before the first decision."""
        return Status(
            cluster=self.cluster.name,
            vips=self.cluster.vips,
            report=self.report(),
            started=self._started,
            haproxy=self.haproxy.facts,
            etcd=tuple(watch.facts for watch in self.etcd),
            pools=self.follower.facts,
            peers=self.peers.peers,
            peers_off=self.certificates.off,
            drain=self._draining.in_force,
            quarantined=max(0.0, self._quarantined_until - time.monotonic()),
            applied=self.applied,
            refused=self.follower.refused,
            old_workers=self.reap.old_workers,
            lag_ms=round(self.haproxy.lag.worst() * 1000, 1),
            clients=self.recovery.facts(),
            split=self.split.facts,
            control_plane=self.control_plane.facts,
        )

    async def connections(self, since: str) -> bytes:
        """What the other agents need to know of this node's connections on the VIP. LbhaError elsewhere."""
        if not self.vip.held:
            raise LbhaError(f"{self.node.name} does not hold the VIP")
        return await self.carried.answer(since)

    async def drain(self, until: float | None, reason: str, force: bool, until_boot: bool) -> None:
        """Let another node hold the VIP, also after a restart. LbhaError when none could, without `force`."""
        self._draining.begin(self.status(), until, reason, force=force, until_boot=until_boot)
        self.consider()

    async def undrain(self) -> None:
        """Take part again."""
        self._draining.end()
        self.consider()

    async def set_server(self, service: str, server: str, state: str, force: bool) -> str:
        """Drain, take out or take back one server on this node's haproxy. LbhaError when that is refused."""
        await asyncio.to_thread(set_server_state, self.cluster.paths, service, server, state, force=force)
        self.haproxy.look_at_servers()
        return f"{service}/{server} is {state} on {self.node.name}"

    def _adopted(self, now: float) -> Health | None:
        """What an earlier agent believed, as far as its score tells."""
        earlier = self._trackers.read()
        if earlier is None:
            return None
        up, score = earlier
        serving = Settled(score >= self._sizes.serving, now)
        return Health(Settled(up, now), "as before", serving, "as before", {})

    def _somebody_else_has_it(self) -> bool:
        """As far as the peers tell; where they cannot, a backup has taken over long before this is asked."""
        if self.certificates.off or self.decision is None:
            return len(self.cluster.nodes) > 1
        reports = known(self.status(), time.time())
        return any(each.holds_vip for name, each in reports.items() if name != self.node.name)

    def _members(self, service: str) -> list[Endpoint]:
        pool = self.follower.pools.get(service)
        return [backend.endpoint for backend in pool.backends] if pool else []

    def _vip_moved(self) -> None:
        self.recovery.look()
        self.consider()

    def _vrrp_changed(self) -> None:
        self.vip.look()
        if self.decision:
            self.resignation.look(self.report(), self.peers.peers)
        self._tell_at = 0.0

    def _on_applied(self, applied: Applied) -> None:
        self.applied = applied
        self.record.applied(applied)
        self.haproxy.look_at_servers()

    def _hangup(self) -> None:
        self._notifier.reloading()
        self.follower.reconsider()
        self._notifier.ready("reloaded")


async def _until_stopped() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    raise Stopped
