"""dns-srv:NAME: the targets of SRV records (RFC 2782), each by its A or AAAA records.

Priorities and weights are not used: haproxy chooses among all targets by their health.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lbha.discovery.endpoints import endpoint, families, one_line
from lbha.discovery.source import Query
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.resolver import Answer


@dataclass(frozen=True, slots=True)
class DnsSrv:
    """Every address of every target. `resolver` is that of /etc/resolv.conf unless one is given."""

    static: ClassVar[bool] = False
    nodes_stand_in: ClassVar[bool] = False

    resolver: Resolver | None = None

    async def find(self, query: Query) -> Sequence[Endpoint]:
        from dns.asyncresolver import Resolver
        from dns.exception import DNSException

        # A little less than the handler's limit, so that the reasons below are heard before it strikes.
        deadline = asyncio.get_running_loop().time() + query.timeout * 0.95
        try:
            resolver = self.resolver or Resolver()
            # A silent name server must leave time for the next one, for the SRV and for the address query.
            resolver.timeout = min(resolver.timeout, query.timeout / 6)
            answer = await _lookup(resolver, query.argument, "SRV", deadline)
        except DNSException as error:
            raise DiscoveryError(_told(error)) from None
        targets = sorted({(str(record.target), int(record.port)) for record in answer})
        if targets and targets[0][0] == ".":
            raise DiscoveryError('its target is ".": the service is decidedly not available (RFC 2782)')
        found = await asyncio.gather(
            *(_addresses(resolver, query.cluster, target, port, deadline) for target, port in targets)
        )
        return [each for addresses in found for each in addresses]


async def _addresses(
    resolver: Resolver, cluster: Cluster, target: str, port: int, deadline: float
) -> list[Endpoint]:
    """All addresses of a target in the first of the VIPs' families that it has; both would count it twice.

    Raises DiscoveryError also when the first family's lookup fails but the other would have worked: else the
    pool would change families with the weather.
    """
    from dns.exception import DNSException
    from dns.resolver import NoAnswer

    for version in families(cluster):
        try:
            answer = await _lookup(resolver, target, "A" if version == 4 else "AAAA", deadline)
            return [endpoint(cluster, str(record), port) for record in answer]
        except NoAnswer:
            continue
        except (DNSException, DiscoveryError) as error:
            raise DiscoveryError(f"target {one_line(target)}: {_told(error)}") from None
    raise DiscoveryError(f"target {one_line(target)} has no address of the VIPs' families")


async def _lookup(resolver: Resolver, name: str, kind: str, deadline: float) -> Answer:
    """Raises DNSException, and DiscoveryError at the deadline: dnspython may sleep past its `lifetime`."""
    left = max(0.001, deadline - asyncio.get_running_loop().time())
    try:
        async with asyncio.timeout(left):
            return await resolver.resolve(name, kind, lifetime=left)
    except TimeoutError:
        raise DiscoveryError("no name server answered in time") from None


def _told(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
