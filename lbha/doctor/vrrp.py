"""VRRP on the wire: is the holder heard, and who else speaks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.model import Cluster
from lbha.vrrp import VERSION, Advert

Heard = Sequence[tuple[str, Advert]]


def vrrp_heard(context: Context) -> Iterator[Finding]:
    """Adverts of a peer, at a raw socket: where keepalived hears them."""
    context.others  # noqa: B018 (DoesNotApply)
    if context.holds_vip:
        raise DoesNotApply("this node holds the VIP: the others are silent, and hear it or not")
    yield from judge_heard(context.cluster, _adverts(context))


def judge_heard(cluster: Cluster, adverts: Heard) -> Iterator[Finding]:
    """On a node that does not hold the VIP."""
    nodes = {address: node.name for node in cluster.nodes for address in node.addresses}
    ours = [nodes[source] for source, advert in adverts if source in nodes and _ours(cluster, advert)]
    if not ours:
        yield Finding(
            "vrrp-heard",
            Severity.ERROR,
            "no advert of any other node arrives here, and this node does not hold the VIP: nobody holds it, "
            "or a firewall drops protocol 112, and then this node will hold it beside another",
            "let protocol 112 pass between the nodes, both ways (nft: meta l4proto 112 ip saddr PEER accept); "
            "listen: tcpdump -ni any proto 112",
        )
    elif len(set(ours)) > 1:
        yield Finding(
            "vrrp-heard",
            Severity.ERROR,
            f"{' and '.join(sorted(set(ours)))} both advertise the VIP: they do not hear each other",
            "let protocol 112 pass between them, both ways; lbha status on both",
        )


def virtual_router_ids(context: Context) -> Iterator[Finding]:
    """Everybody who advertises on this link."""
    yield from judge_routers(context.cluster, _adverts(context))


def judge_routers(cluster: Cluster, adverts: Heard) -> Iterator[Finding]:
    """Adverts of others than the nodes."""
    own = {address for node in cluster.nodes for address in node.addresses}
    taken: dict[int, set[str]] = {}
    for source, advert in adverts:
        if source in own and _ours(cluster, advert):
            continue
        claimed = sorted(set(advert.addresses) & set(cluster.vips))
        if claimed and source in own:
            yield Finding(
                "virtual-router-id",
                Severity.FATAL,
                f"{source}, a node, advertises {', '.join(claimed)} with VRRP version {advert.version} and the "
                f"virtual router id {advert.virtual_router_id}, not {VERSION} and {cluster.virtual_router_id}: "
                "neither hears the other, and both hold the VIP",
                "the same lbha.toml on all nodes, and lbha apply there",
            )
        elif claimed:
            yield Finding(
                "virtual-router-id",
                Severity.FATAL,
                f"{source} advertises {', '.join(claimed)} with the virtual router id "
                f"{advert.virtual_router_id}, and is no node of this cluster",
                "stop VRRP there, or choose another VIP; [failover] vrrp_filter = true keeps it from "
                "keepalived",
            )
        elif advert.virtual_router_id == cluster.virtual_router_id:
            yield Finding(
                "virtual-router-id",
                Severity.WARNING,
                f"{source} advertises this cluster's virtual router id {advert.virtual_router_id} for "
                f"{', '.join(advert.addresses)}",
                f"[cluster] virtual_router_id: another number than {advert.virtual_router_id}, on all nodes "
                "at once",
            )
        else:
            taken.setdefault(advert.virtual_router_id, set()).add(source)
    if taken:
        told = "; ".join(
            f"{router} by {', '.join(sorted(sources))}" for router, sources in sorted(taken.items())
        )
        yield Finding(
            "virtual-router-id",
            Severity.HINT,
            f"other VRRP routers are on this link, with other ids: {told}",
            f"nothing, as long as nobody takes {cluster.virtual_router_id}",
        )


def _ours(cluster: Cluster, advert: Advert) -> bool:
    same = (advert.version, advert.virtual_router_id) == (VERSION, cluster.virtual_router_id)
    return same and bool(set(advert.addresses) & set(cluster.vips))


def _adverts(context: Context) -> Heard:
    try:
        return context.adverts
    except PermissionError:
        raise NotChecked("hearing VRRP needs root (CAP_NET_RAW)") from None
