"""VRRP adverts on the wire, for a while. Needs CAP_NET_RAW."""

from __future__ import annotations

import select
import time
from contextlib import closing

from lbha.agent.adverts import arrived, listen
from lbha.vrrp import Advert


def hear(own_address: str, interface: str, seconds: float) -> tuple[tuple[str, Advert], ...]:
    """The senders and their last adverts, one for each virtual router id. As keepalived hears them: a firewall
    of this host that drops protocol 112 leaves nothing. Raises OSError."""
    six = ":" in own_address
    end = time.monotonic() + seconds
    found: dict[tuple[str, int], Advert] = {}
    with closing(listen(six, interface)) as wire:
        while (left := end - time.monotonic()) > 0:
            if select.select([wire], [], [], left)[0]:
                for source, advert in arrived(wire, six=six):
                    if source != own_address:
                        found[source, advert.virtual_router_id] = advert
    return tuple((source, advert) for (source, _), advert in found.items())
