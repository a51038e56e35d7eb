"""The agent's loop: a fact that changes leads to one snapshot, one judgement, one decision."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from lbha import trackers
from lbha.agent.etcd_watch import EtcdWatch
from lbha.agent.follow import Changed, Follower
from lbha.agent.haproxy_watch import HaproxyWatch
from lbha.agent.notify import Notifier
from lbha.agent.stale_vip import StaleVip
from lbha.agent.vip_watch import VipWatch
from lbha.agent.vrrp_watch import VrrpWatch
from lbha.facts import Applied, Decision, Observation
from lbha.health import Health, Settled, judge
from lbha.keepalived import Keepalived
from lbha.model import Cluster, Endpoint, Kind, Node
from lbha.priority import agent_terms, decide
from lbha.trackers import Trackers

TICK = 0.2
"""Seconds: the slowest that the loop notices that time has passed."""

_LOG = logging.getLogger("lbha")


class _Part(Protocol):
    async def run(self) -> None: ...


class Stopped(Exception):
    """SIGTERM: everything stays as it is."""


class Agent:
    """One node's agent, for as long as lbha.toml says the same."""

    def __init__(
        self,
        cluster: Cluster,
        node: Node,
        config_file: Path,
        load: Callable[[], Cluster],
        notifier: Notifier,
        health: Health | None = None,
    ) -> None:
        run_dir = Path(cluster.paths.run_dir)
        self.cluster, self.node = cluster, node
        self.health = health
        self.decision: Decision | None = None
        self.applied: Applied | None = None
        self._notifier = notifier
        self._started = time.time()
        self._considered = 0.0
        self._sizes = agent_terms(len(cluster.nodes), failback=cluster.failover.failback)
        self._index = cluster.nodes.index(node)
        self._trackers = Trackers(run_dir)
        quarantine = cluster.health.quarantine if self._trackers.first_since_boot else 0.0
        self._quarantined_until = time.monotonic() + quarantine
        names = [service.name for service in cluster.services]
        self.haproxy = HaproxyWatch(cluster.paths.haproxy_socket, names, self.consider)
        self.vip = VipWatch(cluster.vips[0], self.consider)
        keepalived = Keepalived(cluster.paths)
        self.vrrp = VrrpWatch(run_dir / trackers.FIFO, keepalived, self._vrrp_changed)
        self.stale = StaleVip(cluster.vips, self.vip, keepalived, self._somebody_else_has_it, _LOG.warning)
        self.etcd = [
            EtcdWatch(service, partial(self._members, service.name), self.consider)
            for service in cluster.services
            if service.kind is Kind.ETCD
        ]
        self.follower = Follower(cluster, node, config_file, load, self._on_applied)

    async def run(self) -> None:
        """Until something ends it: Changed, Stopped, or a fault of our own."""
        loop = asyncio.get_running_loop()
        trackers.prepare(Path(self.cluster.paths.run_dir))
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        try:
            async with asyncio.TaskGroup() as group:
                parts: list[_Part] = [self.haproxy, self.vip, self.vrrp, self.stale, *self.etcd, self.follower]
                for part in parts:
                    group.create_task(part.run(), name=type(part).__name__)
                group.create_task(self._live(), name="live")
                group.create_task(_until_stopped(), name="signals")
        except* (Changed, Stopped) as ended:
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
            drained=False,
            quarantined=now < self._quarantined_until,
        )

    def consider(self) -> None:
        """Observe, judge, decide, tell keepalived."""
        self._considered = time.monotonic()
        if self.haproxy.facts.problem == "not asked yet":
            return  # What an earlier agent decided stays in force.
        seen = self.observe()
        self.health = judge(self.health or self._adopted(seen.at), seen)
        decision = decide(self._sizes, self._index, seen, self.health)
        before, self.decision = self.decision, decision
        if before is None or (before.up, before.score) != (decision.up, decision.score):
            self._trackers.write(decision)
            self._trackers.beat(decision.up, now=True)
            self._notifier.status(f"priority {decision.priority}: {decision.why}")
            _LOG.info("priority %d: %s", decision.priority, decision.why)

    def _adopted(self, now: float) -> Health | None:
        """What an earlier agent believed, as far as its score tells."""
        earlier = self._trackers.read()
        if earlier is None:
            return None
        up, score = earlier
        serving = Settled(score >= self._sizes.serving, now)
        return Health(Settled(up, now), "as before", serving, "as before", {})

    def _somebody_else_has_it(self) -> bool:
        return len(self.cluster.nodes) > 1

    def _members(self, service: str) -> list[Endpoint]:
        pool = self.follower.pools.get(service)
        return [backend.endpoint for backend in pool.backends] if pool else []

    def _vrrp_changed(self) -> None:
        facts = self.vrrp.facts
        _LOG.info("keepalived: %s", facts.problem or f"{facts.state} {facts.effective_priority}")
        self.vip.look()

    def _on_applied(self, applied: Applied) -> None:
        self.applied = applied
        self.haproxy.look_at_servers()
        _LOG.log(
            logging.ERROR if applied.result == "refused" else logging.INFO,
            "%s: %s",
            applied.result,
            applied.text,
        )

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
