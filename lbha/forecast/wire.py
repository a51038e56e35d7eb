"""What a node's keepalived says to its peers and obeys of them, read from its rendered keepalived.conf. Pure.

From the file and not from lbha.toml, so that an operator's own template is seen as it is. Nodes whose answers
differ do not agree on one holder:

- another version, virtual router id or address family: they do not hear each other;
- another list of addresses in the advert: the receiver drops it (RFC 9568, 7.1). `vrrp_skip_check_adv_addr`
  only spares a sender the check whose last advert was good: a node that was reloaded with other addresses has
  heard none (measured, keepalived 2.2.7). `virtual_ipaddress_excluded` is in no advert;
- adverts to peers' addresses here, to the multicast group there.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbha.errors import RenderError
from lbha.keepalived_conf import parse


@dataclass(frozen=True, slots=True)
class Wire:
    """The first VRRP instance of a file, keepalived's defaults filled in. `peers` empty: multicast."""

    version: int
    virtual_router_id: int
    advert_interval: float
    addresses: tuple[str, ...]
    peers: tuple[str, ...]

    @property
    def family(self) -> int:
        """4 or 6: that of the addresses."""
        return 6 if any(":" in address for address in self.addresses) else 4


def wire(text: str) -> Wire:
    """Of that keepalived.conf. RenderError when it makes no sense."""
    try:
        instances = parse("keepalived.conf", text).instances
    except ValueError as error:
        raise RenderError(f"keepalived.conf.j2 of templates.directory: {error}") from None
    if not instances:
        raise RenderError("keepalived.conf.j2 of templates.directory has no vrrp_instance")
    first = instances[0]
    return Wire(
        version=first.version,
        virtual_router_id=first.router,
        advert_interval=first.advert,
        addresses=tuple(address.partition("/")[0] for address in first.vips),
        peers=first.peers,
    )
