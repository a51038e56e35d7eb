"""Which services a node redirects: haproxy at VIP:redirect_port, nftables in front of it. Pure.

kubeadm's apiserver listens on 0.0.0.0:6443, and beside it nothing can bind VIP:6443.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lbha.model import Cluster, Listen

STAYS = 'since an earlier apply; listen = "vip" ends it'


@dataclass(frozen=True, slots=True)
class Redirect:
    """New connections to VIP:`port` go to haproxy at VIP:`to`. `why` is for people."""

    service: str
    port: int
    to: int
    why: str

    def __str__(self) -> str:
        return f"{self.service}: redirected, {self.port} -> {self.to}: {self.why}"


def redirects(
    cluster: Cluster, taken: Mapping[str, str] | None = None, in_force: Collection[str] = ()
) -> tuple[Redirect, ...]:
    """The services that a node redirects, in the file's order.

    `taken` says by service who has its port (`lbha.listen`); `in_force` are those redirected now. With
    `listen = "auto"` a service that is redirected stays so: once haproxy has left the port, a free one proves
    nothing, since the apiserver may only be restarting. Without facts, as for another host, `auto` is `vip`.
    """
    found = []
    for service in cluster.services:
        why = None
        if service.listen is Listen.REDIRECT:
            why = 'listen = "redirect"'
        elif service.listen is Listen.AUTO:
            why = (taken or {}).get(service.name) or (STAYS if service.name in in_force else None)
        if why:
            found.append(Redirect(service.name, service.port, service.redirect_port, why))
    return tuple(found)
