"""The old holder's part when the VIP has left: it ends the sessions that came through it.

haproxy binds the VIP `transparent`, so what it sends still carries the VIP's address. Chosen twice: the
session is one of a service's frontend, and the kernel says that its client speaks with the VIP. What came
through another address, or to another frontend, is left alone.
"""

from __future__ import annotations

from collections.abc import Set
from ipaddress import ip_address

from lbha import inet_diag
from lbha.connections import Connection, as_clients_see, client, connection, ends, rank, vip_ends
from lbha.haproxy_socket import Socket
from lbha.model import Cluster
from lbha.pause import Pause
from lbha.sessions import Session, end, workers


def hand_over(cluster: Cluster, pause: Pause) -> int:
    """End them in all workers, as long as `pause` says that the VIP is away; how many.

    Blocks. Raises EngineError when haproxy does not answer, OSError when the kernel does not.
    """
    at = vip_ends(cluster)
    carried = as_clients_see(inet_diag.established(at), at)
    if not carried:
        return 0
    _abort_own(cluster, carried)
    by_client = {str(ends(key)[1]).translate(_NO_BRACKETS): rank(key) for key in carried}
    frontends = {service.name for service in cluster.services}

    def due(listed: tuple[Session, ...]) -> list[Session]:
        found = [each for each in listed if each.frontend in frontends and each.client in by_client]
        return sorted(found, key=lambda each: by_client[each.client])

    master = Socket(cluster.paths.haproxy_master_socket)
    ended = 0
    for pid in workers(master):
        if not pause.wait(0.0):
            break
        ended += end(master, f"@!{pid} ", due, cluster.failover.handover_rate, pause)
    return ended


def _abort_own(cluster: Cluster, carried: Set[Connection]) -> None:
    """End this node's own clients of the VIP: the kernel gave them the VIP as their own address too, so what
    haproxy would send them now leaves for the new holder. They see ECONNABORTED."""
    vips = {ip_address(vip).packed for vip in cluster.vips}
    own = [ends(key) for key in carried if client(key) in vips]
    inet_diag.abort(connection(there, here) for here, there in own)


_NO_BRACKETS = {ord("["): None, ord("]"): None}
"""haproxy writes fd00::1:6443."""
