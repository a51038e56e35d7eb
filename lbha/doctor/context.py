"""The facts of this node that several checks share, each gathered once, when the first check asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from lbha import host
from lbha.doctor.links import Interface, Links, links
from lbha.doctor.model import DoesNotApply, NotChecked
from lbha.errors import ConfigError, LbhaError
from lbha.model import Backend, Cluster, Mode, Node, Pools

if TYPE_CHECKING:
    from lbha.doctor.served import Served
    from lbha.facts import Report, Status
    from lbha.vrrp import Advert

AGENT_TIMEOUT = 2.0
DISCOVERY_TIMEOUT = 1.5
LISTEN_LONGEST = 3.0
"""Seconds: for an answer of the agent, for the sources of backends, and for adverts."""

_T = TypeVar("_T")


class _fact(Generic[_T]):
    """A property that is gathered once, whichever of the checks' threads asks first. That it cannot be had is
    kept as well: who asks again would wait for the same silence, until the checks' time is up."""

    def __init__(self, gather: Callable[[Context], _T]) -> None:
        self._gather, self._lock, self._name = gather, threading.Lock(), gather.__name__
        self.__doc__ = gather.__doc__

    def __get__(self, context: Context, _: type[Context]) -> _T:
        with self._lock:
            kept: dict[str, _T] = context.__dict__
            if self._name not in kept:
                if failure := context.failures.get(self._name):
                    raise failure
                try:
                    kept[self._name] = self._gather(context)
                except Exception as error:
                    context.failures[self._name] = error
                    raise
            return kept[self._name]


class Context:
    """This node, by lbha.toml and by what it is. Facts that cannot be had raise NotChecked at each use."""

    failures: dict[str, Exception]
    """By fact, why it cannot be had."""

    def __init__(self, cluster: Cluster, config_file: Path, node_name: str | None = None) -> None:
        self.cluster = cluster
        self.config_file = config_file
        self.node_name = node_name
        self.failures = {}

    @_fact
    def node(self) -> Node:
        """Which node of the file this host is."""
        try:
            return host.find_node(self.cluster, self.node_name)
        except ConfigError as error:
            raise NotChecked("it is not known which node this is; see the check node") from error

    @_fact
    def others(self) -> tuple[Node, ...]:
        """The other nodes. DoesNotApply where there is none."""
        others = tuple(node for node in self.cluster.nodes if node != self.node)
        if not others:
            raise DoesNotApply("a cluster of one node")
        return others

    @_fact
    def links(self) -> Links:
        """Interfaces and addresses of this host."""
        return links()

    @_fact
    def interface(self) -> Interface:
        """Where the VIP goes on this host."""
        name = host.interface_of(self.cluster, self.node)
        found = self.links.interface(name) if name else None
        if found is None:
            raise NotChecked(f"the interface {name or 'of ' + self.node.address} is not on this host")
        return found

    @_fact
    def holds_vip(self) -> bool:
        """Whether this host has the VIP now."""
        return self.links.carrying(self.cluster.vips[0]) is not None

    @_fact
    def haproxy_cfg(self) -> str:
        """What lies in the place of haproxy.cfg."""
        return self._laid(self.cluster.paths.haproxy_cfg)

    @_fact
    def keepalived_conf(self) -> str:
        """What lies in the place of keepalived.conf."""
        return self._laid(self.cluster.paths.keepalived_conf)

    @_fact
    def status(self) -> Status:
        """This node's agent and what it knows of the others. DoesNotApply in script mode."""
        from lbha.agent.client import ask

        if self.cluster.health.mode is Mode.SCRIPT:
            raise DoesNotApply('[health] mode = "script": there is no agent')
        try:
            return ask(self.cluster.paths.run_dir, "GET", "/status", timeout=AGENT_TIMEOUT)
        except LbhaError as error:
            raise NotChecked(str(error)) from None

    @_fact
    def reports(self) -> dict[str, Report]:
        """What is known of each node now, this one included."""
        from lbha.known import known

        return known(self.status, time.time())

    @_fact
    def pools(self) -> Pools:
        """Every service's backends, as discovery finds them now."""
        from lbha import discovery

        memory = Path(self.cluster.paths.state_dir) / "discovery"
        return discovery.discover(self.cluster, memory, keep=False, timeout=DISCOVERY_TIMEOUT)

    def backends(self, service: str) -> tuple[Backend, ...]:
        """The backends of a service."""
        return self.pools[service].backends

    @_fact
    def served(self) -> tuple[Served, ...]:
        """Every apiserver and etcd member, asked as haproxy asks it."""
        from lbha.doctor.served import look_at_all

        return look_at_all(self.cluster.services, self.pools)

    @_fact
    def adverts(self) -> tuple[tuple[str, Advert], ...]:
        """The VRRP adverts that reach this host within some intervals, with their senders."""
        from lbha.doctor.hear import hear

        seconds = max(1.0, 2.5 * self.cluster.failover.advert_interval)
        if seconds > LISTEN_LONGEST:
            raise NotChecked(
                f"adverts come each {self.cluster.failover.advert_interval:g} s: too rarely to wait for"
            )
        return hear(self.node.address, self.interface.name, seconds)

    def _laid(self, path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise NotChecked(f"{path} does not exist: nothing was applied yet; lbha apply") from None
