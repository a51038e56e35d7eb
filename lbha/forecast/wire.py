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

from collections.abc import Iterator
from dataclasses import dataclass


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
    """Of that keepalived.conf."""
    single: dict[str, str] = {}
    lists: dict[str, list[str]] = {"virtual_ipaddress": [], "unicast_peer": []}
    for block, words in _statements(text):
        if block in lists:
            lists[block].append(words[0])
        elif len(words) > 1:
            single.setdefault(words[0], words[1])
    return Wire(
        version=int(single.get("vrrp_version", "2")),
        virtual_router_id=int(single.get("virtual_router_id", "0")),
        advert_interval=float(single.get("advert_int", "1")),
        addresses=tuple(address.partition("/")[0] for address in lists["virtual_ipaddress"]),
        peers=tuple(lists["unicast_peer"]),
    )


def _statements(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every statement as words, with the name of the innermost block around it; of the first instance alone."""
    blocks: list[str] = []
    instances = 0
    for line in text.splitlines():
        words = line.split("#", 1)[0].split("!", 1)[0].split()
        if not words:
            continue
        if words[-1] == "{":
            blocks.append(words[0])
            instances += words[0] == "vrrp_instance"
        elif words == ["}"]:
            blocks = blocks[:-1]
        elif "vrrp_instance" not in blocks or instances == 1:
            yield (blocks[-1] if blocks else ""), words
