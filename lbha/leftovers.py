"""Sockets of an earlier time with the VIP, which would answer for connections that they know nothing of.

A node that lost its cable while it held the VIP keeps half-closed sockets for minutes. A client may have used
the same port again since, for a connection through the next holder. When the VIP returns here and that client
is to be told, its answer would meet the old socket, which says "acknowledged" instead of "reset" (measured: 12
to 54 of 400 clients were not told).

And while nobody has the VIP, the kernel does not pass on a SYN to the port of such a socket: it forwards
nothing that its early demultiplexing has given to one (measured: 4 of 95 clients came 1 s late).
"""

from __future__ import annotations

from collections.abc import Collection

from lbha import inet_diag
from lbha.connections import Connection, as_clients_see, vip_ends
from lbha.model import Cluster


def clear(cluster: Cluster, keys: Collection[Connection]) -> int:
    """End this kernel's sockets of `keys` (as clients see them) that are not established; how many. OSError.

    Only those: `keys` are connections that another node carried after this one, so these cannot be alive here.
    """
    at, wanted = vip_ends(cluster), frozenset(keys)
    stale = [key for key in inet_diag.not_established(at) if as_clients_see({key}, at) <= wanted]
    inet_diag.abort(stale)
    return len(stale)


def clear_all(cluster: Cluster) -> int:
    """End all of them; how many. Raises OSError.

    For a node that has just lost the VIP: nothing that their clients send arrives any more.
    """
    stale = inet_diag.not_established(vip_ends(cluster))
    inet_diag.abort(stale)
    return len(stale)
