"""Sockets of an earlier time with the VIP, which would answer for connections that they know nothing of.

A node that lost its cable while it held the VIP keeps half-closed sockets for minutes. A client may have used
the same port again since, for a connection through the next holder. When the VIP returns here and that client
is to be told, its answer would meet the old socket, which says "acknowledged" instead of "reset" (measured: 12
to 54 of 400 clients were not told).

And while nobody has the VIP, the kernel does not pass on a SYN to such a socket's port: it forwards nothing that
its early demultiplexing has given to a socket (measured: 4 of 95 came 1 s late).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import takewhile

from lbha import inet_diag
from lbha.connections import Connection, as_clients_see, ends, vip_ends
from lbha.model import Cluster
from lbha.pause import Pause


def clear(cluster: Cluster, keys: Collection[Connection]) -> int:
    """End this kernel's half-closed sockets of `keys` (as clients see them); how many. Raises OSError.

    Only those: `keys` are connections that another node carried after this one, so these cannot be alive here.
    """
    at, wanted = vip_ends(cluster), frozenset(keys)
    return _abort(key for key in inet_diag.half_closed(at) if as_clients_see({key}, at) <= wanted)


def clear_all(cluster: Cluster, pause: Pause) -> int:
    """End all of them, as long as `pause` says that the VIP is away: no client can end them any more. How many.
    Raises OSError."""
    found = inet_diag.half_closed(vip_ends(cluster))
    return _abort(takewhile(lambda _: pause.wait(0.0), found))


def _abort(keys: Iterable[Connection]) -> int:
    count = 0
    for key in keys:
        with suppress(OSError):  # It has gone by itself, or the kernel cannot.
            inet_diag.abort(*ends(key))
        count += 1
    return count
