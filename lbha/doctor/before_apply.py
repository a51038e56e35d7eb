"""What `lbha apply` is refused for: fatal findings that are certain, and seen within milliseconds.

The other fatal ones cost more (`vip-stranger` listens for a second), or apply itself meets them (`node`,
`ports`, `track-script`). A check that cannot be made refuses nothing.
"""

from __future__ import annotations

from pathlib import Path

from lbha.doctor import engines, kernel, running
from lbha.doctor.context import Context
from lbha.doctor.examine import make_one
from lbha.doctor.model import Check, Severity
from lbha.errors import ApplyError
from lbha.model import Cluster, Node

CHECKS = (
    Check("haproxy-features", "", engines.haproxy_features),
    Check("other-keepalived", "", running.other_keepalived),
    Check("ipv6", "", kernel.ipv6),
)


def prove(cluster: Cluster, node: Node) -> None:
    """ApplyError with the first fatal finding."""
    context = Context(cluster, Path(), node.name)
    for check in CHECKS:
        for finding in make_one(check, context).findings:
            if finding.severity is Severity.FATAL:
                raise ApplyError(f"{finding.name}: {finding.evidence}; {finding.cure}; --force applies anyway")
