"""What every test may use: cluster files and pools of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lbha.model import Backend, Cluster, Endpoint, Pool

SMALLEST = """\
[cluster]
name = "prod"
vip  = "10.0.0.100"

[nodes]
cp1 = "10.0.0.11"
cp2 = "10.0.0.12"
cp3 = "10.0.0.13"

[services.apiserver]
kind = "kube-apiserver"

[services.etcd]
kind = "etcd"
"""
"""The smallest file of the README."""


@pytest.fixture
def smallest() -> str:
    return SMALLEST


@pytest.fixture
def own_nodes() -> Callable[[Cluster], dict[str, Pool]]:
    """Pools of the cluster's own nodes, as `backends = "nodes"` gives them, and `extra` servers beside."""

    def pools(cluster: Cluster, extra: int = 0) -> dict[str, Pool]:
        return {
            service.name: Pool(
                service.name,
                tuple(Backend(node.name, Endpoint(node.address, service.target_port)) for node in cluster.nodes)
                + tuple(
                    Backend(f"10.200.{index // 250}.{index % 250}:{service.target_port}", endpoint)
                    for index in range(extra)
                    for endpoint in (Endpoint(f"10.200.{index // 250}.{index % 250}", service.target_port),)
                ),
            )
            for service in cluster.services
        }

    return pools


@pytest.fixture
def templates() -> Path:
    """The templates of this checkout."""
    return Path(__file__).parent.parent / "templates"
