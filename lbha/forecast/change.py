"""From one lbha.toml to another: what differs on each node, and whether nodes of both may run together.

Pure, but that the templates are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lbha import haproxy_text
from lbha.discovery.endpoints import backends, node_endpoints
from lbha.forecast.wire import Wire, wire
from lbha.model import Cluster, Endpoint, Node, Pool, Pools, Service
from lbha.redirect import redirects
from lbha.render import render

_SOMEWHERE = "192.0.2.1"
"""RFC 5737: stands for servers that only discovery knows, the same before and after."""


class Fate(StrEnum):
    """What becomes of a node. One whose address changes is removed and added."""

    STAYS = "stays"
    ADDED = "added"
    REMOVED = "removed"
    READDRESSED = "gets another address"


@dataclass(frozen=True, slots=True)
class NodeChange:
    """`reloads` and `restarts` name what runs on the node and has to; `adjusted`: haproxy's servers change
    without a reload."""

    node: str
    fate: Fate
    reloads: tuple[str, ...] = ()
    restarts: tuple[str, ...] = ()
    adjusted: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """`what` changes `before` to `after`: nodes with the one and nodes with the other elect a holder each."""

    what: str
    before: str
    after: str
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """Without refusals it may be rolled from node to node."""

    nodes: tuple[NodeChange, ...]
    refusals: tuple[Refusal, ...]


def compare(old: Cluster, new: Cluster) -> Change:
    """What it takes to bring the nodes of `old` to `new`. RenderError for templates that cannot be rendered."""
    before, after = ({node.name: node for node in cluster.nodes} for cluster in (old, new))
    nodes, wires = [], []
    for name in {**before, **after}:
        fate = _fate(before.get(name), after.get(name))
        if fate is not Fate.STAYS:
            nodes.append(NodeChange(name, fate))
            continue
        was, now = _rendered(old, before[name]), _rendered(new, after[name])
        reloads, adjusted = _reloads(was, now)
        nodes.append(NodeChange(name, fate, reloads, _restarts(old, new), adjusted))
        wires.append((wire(was["keepalived.conf"]), wire(now["keepalived.conf"])))
    refusals: dict[str, Refusal] = {}
    if not wires:
        told = "; ".join(f"{node.name} {node.address}" for node in old.nodes)
        new_ones = "; ".join(f"{node.name} {node.address}" for node in new.nodes)
        why = "no node stays that could list a new one before it starts"
        refusals["nodes"] = Refusal("nodes", told, new_ones, why)
    elif len(wires) > 1:  # One alone: whoever else there is has stopped before, or starts after.
        for was_wire, now_wire in wires:
            for refusal in disagreements(was_wire, now_wire):
                refusals.setdefault(refusal.what, refusal)
    return Change(tuple(nodes), tuple(refusals.values()))


def disagreements(old: Wire, new: Wire) -> tuple[Refusal, ...]:
    """Why nodes of the one and nodes of the other would not agree on one holder."""
    deaf = "nodes with the one do not hear nodes with the other: each group elects a holder"
    found = []
    if old.version != new.version:
        found.append(Refusal("VRRP version", str(old.version), str(new.version), deaf))
    if old.virtual_router_id != new.virtual_router_id:
        found.append(
            Refusal("cluster.virtual_router_id", str(old.virtual_router_id), str(new.virtual_router_id), deaf)
        )
    if old.family != new.family:
        found.append(Refusal("address family", f"IPv{old.family}", f"IPv{new.family}", deaf))
    elif old.addresses != new.addresses:
        why = "a node drops adverts that list other addresses than its own: each group elects a holder"
        found.append(Refusal("first VIP", ", ".join(old.addresses), ", ".join(new.addresses), why))
    if old.version == new.version == 2 and old.advert_interval != new.advert_interval:
        intervals = f"{old.advert_interval:g} s", f"{new.advert_interval:g} s"
        why = "VRRP version 2 drops adverts of another interval than its own (version 3 adopts it)"
        found.append(Refusal("failover.advert_interval", *intervals, why))
    if bool(old.peers) != bool(new.peers):
        words = [f"unicast to {len(each.peers)} peers" if each.peers else "multicast" for each in (old, new)]
        found.append(Refusal("adverts", words[0], words[1], deaf))
    return tuple(found)


def _fate(before: Node | None, after: Node | None) -> Fate:
    """By the address that its adverts come from; in another family it has perhaps been known already."""
    if before is None or after is None:
        return Fate.ADDED if before is None else Fate.REMOVED
    if (":" in before.address) == (":" in after.address):
        same = before.address == after.address
    else:
        same = before.address in after.addresses or after.address in before.addresses
    return Fate.STAYS if same else Fate.READDRESSED


def _reloads(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    """The engines that must read a file anew; and whether haproxy gets its servers without a reload."""
    found, adjusted = [], False
    old, new = before["haproxy.cfg"], after["haproxy.cfg"]
    if haproxy_text.structure(old) != haproxy_text.structure(new):
        found.append("haproxy")
    elif old != new:
        adjusted = True
    if before.get("lbha.nft") != after.get("lbha.nft"):
        found.append("nftables")
    if before["keepalived.conf"] != after["keepalived.conf"]:
        found.append("keepalived")
    return tuple(found), adjusted


def _restarts(old: Cluster, new: Cluster) -> tuple[str, ...]:
    """What learns of it on its command line alone; and the agent, where it comes or goes."""
    was, now = old.paths, new.paths
    found = []
    if (was.haproxy_cfg, was.haproxy_master_socket) != (now.haproxy_cfg, now.haproxy_master_socket):
        found.append("haproxy")
    if (was.keepalived_conf, was.keepalived_pid) != (now.keepalived_conf, now.keepalived_pid):
        found.append("keepalived")
    if old.health.mode is not new.health.mode:
        found.append("lbha-agent")
    return tuple(found)


def _rendered(cluster: Cluster, node: Node) -> Mapping[str, str]:
    """As `lbha render` for another host. Where the file names no interface, it is the same before and after."""
    interface = cluster.interface or "eth0"
    return render(cluster, node, _pools(cluster), interface, redirects=redirects(cluster)).files


def _pools(cluster: Cluster) -> Pools:
    """What the file itself says of servers."""
    return {
        service.name: Pool(service.name, backends(cluster, service, _endpoints(cluster, service)))
        for service in cluster.services
    }


def _endpoints(cluster: Cluster, service: Service) -> Sequence[Endpoint]:
    if not isinstance(service.backends, str):
        return service.backends
    if service.backends == "nodes":
        return node_endpoints(cluster, service)
    return (Endpoint(_SOMEWHERE, service.target_port),)
