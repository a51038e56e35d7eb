"""Servers that lbha.toml itself names: every node, or a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lbha.discovery.endpoints import node_endpoints
from lbha.discovery.source import Query
from lbha.model import Endpoint


@dataclass(frozen=True, slots=True)
class Nodes:
    """`backends = "nodes"` or a list of endpoints, which the configuration has checked."""

    static: ClassVar[bool] = True
    nodes_stand_in: ClassVar[bool] = True

    async def find(self, query: Query) -> Sequence[Endpoint]:
        listed = query.service.backends
        return node_endpoints(query.cluster, query.service) if isinstance(listed, str) else listed
