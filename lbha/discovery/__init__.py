"""Where a service's servers come from: one module a source, and the last good answer when a source fails.

    pools = discover(cluster, Path("/var/lib/lbha/discovery"))

A pool is never empty and never shrinks because a source could not be asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lbha.discovery.dns_srv import DnsSrv
from lbha.discovery.endpoints import backends, checked, node_endpoints, one_line
from lbha.discovery.etcd_env import EtcdEnv
from lbha.discovery.etcd_members import EtcdMembers
from lbha.discovery.kubernetes import Kubernetes
from lbha.discovery.memory import LastGood, recall, remember
from lbha.discovery.nodes import Nodes
from lbha.discovery.source import Query, Source
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint, Pool, Service

__all__ = ["SOURCES", "Query", "Source", "discover", "discover_async"]

SOURCES: Mapping[str, Source] = {
    "nodes": Nodes(),
    "etcd-env": EtcdEnv(),
    "etcd-members": EtcdMembers(),
    "kubernetes": Kubernetes(),
    "dns-srv": DnsSrv(),
}
"""What stands before the colon in `backends`, and its source. A list of endpoints goes to "nodes"."""

_LOG = logging.getLogger(__name__)


def discover(
    cluster: Cluster,
    memory: Path | None,
    *,
    keep: bool = True,
    timeout: float = 3.0,
    clock: Callable[[], float] = time.time,
    sources: Mapping[str, Source] = SOURCES,
) -> dict[str, Pool]:
    """Service name to pool, all sources asked at once, each for at most `timeout` seconds.

    `memory` is the directory of last good answers (None: forget); new ones are put there only with `keep`,
    so that a look at some other lbha.toml costs no pool its memory. A source that fails leaves its last good
    answer with its age; without one the nodes stand in where the source allows it. Raises DiscoveryError
    where nothing honest can. Not for use inside a running event loop: that is `discover_async`.
    """
    return asyncio.run(
        discover_async(cluster, memory, keep=keep, timeout=timeout, clock=clock, sources=sources)
    )


async def discover_async(
    cluster: Cluster,
    memory: Path | None,
    *,
    keep: bool = True,
    timeout: float = 3.0,
    clock: Callable[[], float] = time.time,
    sources: Mapping[str, Source] = SOURCES,
) -> dict[str, Pool]:
    """As `discover`, inside a running event loop."""
    results = await asyncio.gather(
        *(_pool(cluster, service, memory, timeout, clock, sources) for service in cluster.services),
        return_exceptions=True,
    )
    if memory and keep:
        # After all have answered: an fsync on a slow disk must not use up the others' time.
        for service, result in zip(cluster.services, results, strict=True):
            if isinstance(result, Pool) and not result.error and not _source(service, sources)[0].static:
                _keep(memory, cluster, service, result, clock())
    # Only now, so that the good answers of the other services have been remembered.
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors:
        if not isinstance(error, DiscoveryError):
            raise error
    if errors:
        raise DiscoveryError("; ".join(str(error) for error in errors))
    return {pool.service: pool for pool in results if isinstance(pool, Pool)}


async def _pool(
    cluster: Cluster,
    service: Service,
    memory: Path | None,
    timeout: float,
    clock: Callable[[], float],
    sources: Mapping[str, Source],
) -> Pool:
    source, argument = _source(service, sources)
    if source.static:
        found = await source.find(Query(cluster, service, argument, (), timeout))
        return Pool(service.name, backends(cluster, service, found))
    last_good = recall(memory, cluster, service) if memory else None
    query = Query(cluster, service, argument, last_good.endpoints if last_good else (), timeout)
    try:
        endpoints = await _fresh(source, query)
    except DiscoveryError as error:
        return _stale(cluster, service, source, last_good, clock(), str(error))
    return Pool(service.name, backends(cluster, service, endpoints))


def _source(service: Service, sources: Mapping[str, Source]) -> tuple[Source, str]:
    """The source of a service and what follows its colon."""
    wanted = service.backends if isinstance(service.backends, str) else "nodes"
    name, _, argument = wanted.partition(":")
    return sources[name], argument


def _keep(memory: Path, cluster: Cluster, service: Service, pool: Pool, now: float) -> None:
    try:
        remember(memory, cluster, service, tuple(each.endpoint for each in pool.backends), now)
    except OSError as error:
        _LOG.warning(
            "%s: the answer for %s cannot be kept (%s); it will not outlive a failure of its source",
            memory,
            service.name,
            error.strerror or error,
        )


async def _fresh(source: Source, query: Query) -> tuple[Endpoint, ...]:
    """A whole, checked answer in time. Raises DiscoveryError for anything less."""
    try:
        async with asyncio.timeout(query.timeout):
            found = await source.find(query)
    except DiscoveryError:
        raise
    except TimeoutError:
        raise DiscoveryError(f"no answer in {query.timeout:g} s") from None
    except Exception as error:
        # A source reads what strangers write: whatever it stumbles over must not cost a pool.
        raise DiscoveryError(one_line(f"{type(error).__name__}: {error}")) from error
    return checked(query.cluster, found)


def _stale(
    cluster: Cluster, service: Service, source: Source, last_good: LastGood | None, now: float, problem: str
) -> Pool:
    told = f'services.{service.name}.backends = "{service.backends}": {problem}'
    if last_good:
        age = max(0.0, now - last_good.confirmed)
        return Pool(service.name, backends(cluster, service, last_good.endpoints), age, told)
    if source.nodes_stand_in:
        standing_in = backends(cluster, service, node_endpoints(cluster, service))
        return Pool(service.name, standing_in, None, told)
    raise DiscoveryError(
        f"{told}; there is no earlier answer to go on with: repair the source, or list the servers in backends"
    )
