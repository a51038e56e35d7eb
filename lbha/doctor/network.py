"""The interface, the VIP on it, and who else answers for the VIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from lbha import host
from lbha.doctor.context import Context
from lbha.doctor.links import Interface, Links
from lbha.doctor.model import Finding, NotChecked, Severity
from lbha.doctor.probe import probe
from lbha.engine import one_line
from lbha.errors import ConfigError, EngineError
from lbha.keepalived import Keepalived, State
from lbha.model import Cluster, Node


def node_in_file(context: Context) -> Iterator[Finding]:
    """Which node this host is, and whether it really has that node's addresses."""
    try:
        node = host.find_node(context.cluster, context.node_name)
    except ConfigError as error:
        yield Finding(
            "node",
            Severity.FATAL,
            f"{error}: a node that its peers do not list advertises all the same, and both hold the VIP",
            "list it in [nodes] on every node first, or say which one it is: --node NAME",
        )
        return
    yield from judge_node(node, context.links)


def judge_node(node: Node, links: Links) -> Iterator[Finding]:
    """Whether the node's addresses are this host's."""
    for address in node.addresses:
        if links.carrying(address) is None:
            yield Finding(
                "node",
                Severity.FATAL,
                f"this host is {node.name}, by --node or LBHA_NODE or another address, and {address} of "
                "[nodes] is on none of its interfaces",
                "bring the address up (ip address), or correct [nodes]",
            )


def interface(context: Context) -> Iterator[Finding]:
    """The one where the VIP goes."""
    node, cluster = context.node, context.cluster
    name = host.interface_of(cluster, node)
    if name is None:
        raise NotChecked(f"{node.address} is on no interface of this host; see the check `node`")
    yield from judge_interface(cluster, node, name, context.links)


def judge_interface(cluster: Cluster, node: Node, name: str, links: Links) -> Iterator[Finding]:
    """Whether the VIP can be reached there."""
    found = links.interface(name)
    if found is None:
        known = ", ".join(each.name for each in links.interfaces)
        yield Finding(
            "interface",
            Severity.FATAL,
            f'[cluster] interface = "{name}" is not on this host ({known}): keepalived ends at once',
            "correct [cluster] interface, or leave it out: then it is the one with the node's address",
        )
        return
    if not (found.up and found.carrier):
        state = "has no carrier" if found.up else "is down"
        yield Finding(
            "interface", Severity.ERROR, f"{name} {state}: this node is in FAULT", f"ip link set {name} up"
        )
    carrying = links.carrying(node.address)
    if carrying and carrying.interface != name:
        yield Finding(
            "interface",
            Severity.WARNING,
            f"the VIP goes on {name}, the node's address {node.address} is on {carrying.interface}: a cut of "
            f"{name} alone leaves the adverts whole, and nobody takes over",
            "leave [cluster] interface out, or give [nodes] the addresses on it",
        )
    for vip in cluster.vips:
        networks = [each.network for each in links.on(name) if each.address not in cluster.vips]
        if not any(ip_address(vip) in each.network for each in networks):
            yield Finding(
                "interface",
                Severity.WARNING,
                f"{vip} is in no network of {name} ({', '.join(map(str, networks)) or 'no address'}): hosts "
                "on the link reach it only where a route of theirs says so",
                "choose a free address of that network as VIP, or route it to this link everywhere",
            )


def vip_here(context: Context) -> Iterator[Finding]:
    """The VIP on this host, as keepalived would have it."""
    node, cluster = context.node, context.cluster
    wanted = host.interface_of(cluster, node)
    try:
        instances = Keepalived(cluster.paths).state()
    except EngineError as error:
        raise NotChecked(one_line(error)) from None
    master = instances is not None and any(each.state is State.MASTER for each in instances)
    yield from judge_vip_here(cluster, wanted, context.links, master=master, runs=instances is not None)


def judge_vip_here(
    cluster: Cluster, wanted: str | None, links: Links, *, master: bool, runs: bool
) -> Iterator[Finding]:
    """`master`: keepalived says that it holds the VIP; `runs`: it is there to be asked."""
    for vip in cluster.vips:
        found = links.carrying(vip)
        if found is None:
            continue
        if not master:
            why = "keepalived is not MASTER" if runs else "keepalived does not run"
            yield Finding(
                "vip-here",
                Severity.ERROR,
                f"{vip} is on {found.interface} although {why}: two hosts have it as soon as another node is "
                "MASTER",
                f"ip address del {vip}/{found.prefix} dev {found.interface}; is it in this host's own network "
                "configuration? take it out there",
            )
        elif wanted and found.interface != wanted:
            yield Finding(
                "vip-here",
                Severity.ERROR,
                f"{vip} is on {found.interface}, and lbha puts it on {wanted}",
                f"ip address del {vip}/{found.prefix} dev {found.interface}",
            )
        if found.prefix != (128 if ":" in vip else 32):
            yield Finding(
                "vip-here",
                Severity.WARNING,
                f"{vip} has the prefix /{found.prefix}: it may become the source of this host's own "
                "connections, and when it leaves it can take the interface's other addresses with it",
                "lbha adds it as /32 (/128): take it out of whatever else adds it here",
            )


def vip_stranger(context: Context) -> Iterator[Finding]:
    """Ask the link for the VIPs, and for the nodes to know their MAC addresses."""
    cluster, node, where = context.cluster, context.node, context.interface
    addresses = [
        *cluster.vips,
        *(address for other in cluster.nodes if other != node for address in other.addresses),
    ]
    own6 = next((address for address in node.addresses if ":" in address), None)
    if not where.mac or where.mac == "00:00:00:00:00:00":
        raise NotChecked(f"{where.name} is no Ethernet: nobody can be asked who has an address")
    if not where.up:
        raise NotChecked(f"{where.name} is down")
    try:
        answers = probe(where, addresses, own6)
    except PermissionError:
        raise NotChecked("asking the link needs root (CAP_NET_RAW)") from None
    own = {each.mac for each in context.links.interfaces}
    others = {address: macs - own for address, macs in answers.items()}
    yield from judge_answers(cluster, node, where, others, holds=context.holds_vip)


def judge_answers(
    cluster: Cluster, node: Node, where: Interface, answers: Mapping[str, frozenset[str]], *, holds: bool
) -> Iterator[Finding]:
    """`answers`: by address the MACs of other hosts that answered; `holds`: this node has the VIP."""
    owners = {
        mac: other.name
        for other in cluster.nodes
        if other != node
        for address in other.addresses
        for mac in answers.get(address, ())
    }
    for vip in cluster.vips:
        macs = answers.get(vip, frozenset())
        strangers = sorted(macs - set(owners))
        if strangers:
            yield Finding(
                "vip-stranger",
                Severity.FATAL,
                f"{' and '.join(strangers)} answers for {vip} on {where.name}, and is none of the nodes: "
                "clients reach that host, whoever holds the VIP",
                f"find it (arping -I {where.name} {vip}; the switch's table) and take the address from it, or "
                "choose another VIP",
            )
        holders = sorted({owners[mac] for mac in macs if mac in owners} | ({node.name} if holds else set()))
        if len(holders) > 1:
            yield Finding(
                "vip-stranger",
                Severity.ERROR,
                f"{' and '.join(holders)} both answer for {vip} on {where.name}",
                "lbha status on both; the check vrrp-heard tells whether they hear each other",
            )
