"""etcd-members: the cluster's own list of members, asked over its JSON gateway.

`POST /v3/cluster/member/list` with `{}` is answered by any started voter from its own view, also without a
quorum (etcd 3.4.23: 9 to 14 ms); a learner refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from lbha.discovery.endpoints import one_line
from lbha.discovery.hosts import host_and_port, member_endpoint, member_endpoints
from lbha.discovery.peers import Request, first_good, tls_context
from lbha.discovery.source import Query, off_loop
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint


class _Member(msgspec.Struct, rename={"client_urls": "clientURLs", "learner": "isLearner"}):
    """The gateway omits what is empty or false."""

    name: str = ""
    client_urls: list[str] = []
    learner: bool = False


class _Members(msgspec.Struct):
    members: list[_Member]


@dataclass(frozen=True, slots=True)
class EtcdMembers:
    """Started voters, at the client URLs that they advertise."""

    static: ClassVar[bool] = False
    nodes_stand_in: ClassVar[bool] = True

    async def find(self, query: Query) -> Sequence[Endpoint]:
        tls = query.service.tls
        context = await off_loop(lambda: tls_context(tls)) if tls else None
        request = Request("POST", "/v3/cluster/member/list", context, content=b"{}")
        return await first_good(query, request, lambda body: voters(query.cluster, body))


async def voters(cluster: Cluster, body: bytes) -> tuple[Endpoint, ...]:
    """A learner answers no linearizable read; a member without name or client URLs has never started."""
    try:
        members = msgspec.json.decode(body, type=_Members).members
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DiscoveryError(f"not a list of members: {one_line(str(error))}") from None
    voters = [each for each in members if each.name and each.client_urls and not each.learner]
    if not voters:
        raise DiscoveryError(f"none of its {len(members)} members is a started voter")
    return await member_endpoints((each.name, _endpoint(cluster, each)) for each in voters)


async def _endpoint(cluster: Cluster, member: _Member) -> Endpoint:
    return await member_endpoint(cluster, [host_and_port(url) for url in member.client_urls])
