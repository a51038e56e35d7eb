"""Keeps what the engines run in step with lbha.toml, with the files it names, and with discovery.

Every change goes through `lbha.apply`, in a thread: it validates with the real engines, and what is bad is
refused while everything goes on as it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver

from lbha import apply, discovery
from lbha.errors import ConfigError, LbhaError
from lbha.facts import Applied, PoolFacts
from lbha.model import Cluster, Node, Pools

DISCOVER_EVERY = 2.0
"""Seconds between two looks at sources that can change without a file changing."""

SETTLE = 0.05
"""Seconds: editors write a file in several steps."""

RETRY = 10.0
"""Seconds until something refused is tried again: a full disk may have been emptied."""

CONVERGE = 30.0
"""Seconds until an apply although nothing is new: it finishes what waited for the first good check, and sets
right what somebody else changed."""

Load = Callable[[], Cluster]


class Changed(Exception):
    """lbha.toml says something new, and the engines run it: who works by the old cluster must start afresh.

    `cluster` is what they run. The file may have been edited again meanwhile, and not well.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("lbha.toml has changed")
        self.cluster = cluster


class Follower:
    """Applies what changed, until cancelled. `told` is called with every result."""

    def __init__(
        self,
        cluster: Cluster,
        node: Node,
        config_file: Path,
        load: Load,
        told: Callable[[Applied], None],
    ) -> None:
        self.pools: Pools = {}
        self.refused: str | None = None
        self.digest = ""  # `cluster` may be older than the file by now: the first step reads it again.
        self._cluster, self._node = cluster, node
        self._config_file, self._load, self._told = config_file, load, told
        self._wake = asyncio.Event()
        self._applied: object = None
        self._again = 0.0
        self._failed: str | None = None

    @property
    def facts(self) -> tuple[PoolFacts, ...]:
        """The pools as discovery left them."""
        return tuple(
            PoolFacts(name, len(pool.backends), pool.age, pool.error)
            for name, pool in sorted(self.pools.items())
        )

    def reconsider(self) -> None:
        """Look at everything again now."""
        self._applied = None
        self._wake.set()

    async def run(self) -> None:
        """Raises Changed when lbha.toml has another content that is in force now."""
        loop = asyncio.get_running_loop()
        observer = _observe(_files(self._cluster, self._config_file), loop, self._wake.set)
        try:
            while True:
                await self._step()
                timeout = DISCOVER_EVERY if _dynamic(self._cluster) else RETRY
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                    await asyncio.sleep(SETTLE)
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            observer.stop()

    async def _step(self) -> None:
        """One look at everything, and an apply where something is new, or has not been looked at for long."""
        problem = None
        try:
            digest = file_digest(self._config_file)
            cluster = await asyncio.to_thread(self._load) if digest != self.digest else self._cluster
            node = _same_node(cluster, self._node)
        except LbhaError as error:
            # The running configuration stays; what is discovered for it goes on being followed.
            problem = str(error)
            self._conclude(problem)
            digest, cluster, node = self.digest, self._cluster, self._node
        try:
            pools = await discovery.discover_async(cluster, Path(cluster.paths.state_dir) / "discovery")
        except LbhaError as error:
            self._conclude(problem or str(error))
            return
        self.pools = pools
        news = (digest, _contents(cluster), {name: pool.backends for name, pool in pools.items()})
        fresh = news != self._applied
        if not fresh and time.monotonic() < self._again:
            self._conclude(problem or self._failed)
            return
        self._applied = news
        try:
            report = await asyncio.to_thread(apply.apply, cluster, node, digest, pools=pools)
        except LbhaError as error:
            self._failed, self._again = str(error), time.monotonic() + RETRY
            self._conclude(problem or self._failed)
            return
        self._failed, self._again = None, time.monotonic() + CONVERGE
        if fresh or report.result == "applied":
            self._told(Applied(time.time(), report.result, _one_line(report)))
        self._conclude(problem)
        if cluster != self._cluster:
            raise Changed(cluster)
        self.digest = digest

    def _conclude(self, problem: str | None) -> None:
        """What stands against the present lbha.toml, told when it is new."""
        if problem is not None and problem != self.refused:
            self._told(Applied(time.time(), "refused", problem))
        self.refused = problem


def _same_node(cluster: Cluster, node: Node) -> Node:
    """What the new lbha.toml says of this node. ConfigError when it says nothing."""
    for each in cluster.nodes:
        if each.name == node.name:
            return each
    raise ConfigError(
        f"{node.name} is not in [nodes] any more: stop lbha-agent and keepalived here, or list it again"
    )


def _one_line(report: apply.Report) -> str:
    told = [f"{step.engine} {step.action}" for step in report.steps]
    told += [str(redirect) for redirect in report.redirects]
    return "; ".join([*told, report.held] if report.held else told)


def file_digest(path: Path) -> str:
    """The sha256 of a file; empty when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _files(cluster: Cluster, config_file: Path) -> set[Path]:
    """Every file that may change what the engines should run."""
    found = {config_file}
    for service in cluster.services:
        tls = service.tls
        found |= {Path(path) for path in (tls.ca, tls.cert, tls.key) if path} if tls else set()
        if service.token_file:
            found.add(Path(service.token_file))
        if isinstance(service.backends, str) and service.backends.startswith("etcd-env:"):
            found.add(Path(service.backends.partition(":")[2]))
    if cluster.templates:
        found |= {Path(cluster.templates) / below for below in ("haproxy/x", "keepalived/x", "nftables/x")}
    return found


def _contents(cluster: Cluster) -> tuple[str, ...]:
    """What apply reads besides lbha.toml: certificates and templates."""
    paths: list[Path] = []
    for service in cluster.services:
        tls = service.tls
        paths += [Path(path) for path in (tls.ca, tls.cert, tls.key) if path] if tls else []
    if cluster.templates:
        paths += sorted(Path(cluster.templates).glob("*/*.j2"))
    return tuple(file_digest(path) for path in paths)


def _dynamic(cluster: Cluster) -> bool:
    return any(
        isinstance(service.backends, str) and service.backends.partition(":")[0] not in ("nodes", "etcd-env")
        for service in cluster.services
    )


class _Bell(FileSystemEventHandler):
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("opened", "closed_no_write"):
            self._ring()


def _observe(files: set[Path], loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> BaseObserver:
    """Watch the directories of those files: a rename over a file is seen only there."""

    def from_thread() -> None:
        try:
            loop.call_soon_threadsafe(ring)
        except RuntimeError:
            pass  # the loop has ended

    observer = InotifyObserver()
    for directory in sorted({path.parent for path in files}):
        if directory.is_dir():
            observer.schedule(_Bell(from_thread), str(directory))
    observer.daemon = True
    observer.start()
    return observer
