"""A drained holder asks its successor to take the VIP at once.

A backup that hears a lower priority than its own discards it, and takes over only after the master-down time
(0.6 s by default). Priority 0 says that the holder stops, and the backup waits its skew alone (RFC 9568,
6.4.2). keepalived sends that in FAULT, after it has removed the VIP. Here it is sent while the holder still
serves: the VIP moves as soon, and nobody is without it. A lost advert costs nothing but the master-down time.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from lbha.facts import Report
from lbha.model import Cluster, Node
from lbha.vrrp import PROTOCOL, VERSION, Advert, build, rank

_HOPS = 255
"""What shows that no router passed it on (RFC 9568, 5.1.1.3)."""


def successor(own: Report, others: Iterable[Report], cluster: Cluster) -> Report | None:
    """Whose keepalived will take the VIP from this holder's, by what both say; None when nobody's will."""
    mine = own.vrrp.effective_priority
    # A drain alone is meant. When all nodes lose a service, they learn it one by one, and the 0.6 s keep the
    # VIP from moving for that (measured at the loss of etcd's quorum).
    if (
        not own.drained
        or not own.holds_vip
        or own.vrrp.state != "MASTER"
        or mine is None
        or not own.decision.up
    ):
        return None
    address = {node.name: node.address for node in cluster.nodes}
    able = [
        (rank(its, address[other.node]), other)
        for other in others
        if other.vrrp.state == "BACKUP"
        and (its := other.vrrp.effective_priority) is not None
        # Both words: an asked backup that has less would take the VIP, and give it back.
        and min(its, other.decision.priority) > max(mine, own.decision.priority)
    ]
    return max(able, key=lambda each: each[0])[1] if able else None


def resign(cluster: Cluster, node: Node, to: Node) -> None:
    """Send that node a priority of 0. Raises OSError: EPERM without CAP_NET_RAW."""
    six = ":" in node.address
    advert = Advert(VERSION, cluster.virtual_router_id, 0, cluster.vips[:1])
    data = build(advert, cluster.failover.advert_interval, node.address, to.address)
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOL) as wire:
        if six:
            wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _HOPS)
        else:
            wire.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _HOPS)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # It gets a copy of all VRRP: no use.
        wire.bind((node.address, 0))
        wire.sendto(data, (to.address, 0))
