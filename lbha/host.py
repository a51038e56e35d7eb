"""What this host is, by its own addresses (netlink): which node of the file, and on which interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address

from lbha.config.document import shown
from lbha.config.values import is_interface
from lbha.errors import ConfigError
from lbha.model import Cluster, Node


def own_addresses() -> dict[str, str]:
    """Every address of this host (this network namespace) and the interface that carries it."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        addresses: dict[str, str] = {}
        for message in netlink.get_addr():
            # On a point-to-point link IFA_ADDRESS is the far end; IFA_LOCAL is ours.
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text:
                addresses[str(ip_address(text))] = names.get(message["index"], "")
        return addresses


def remove_addresses(addresses: Sequence[str]) -> list[str]:
    """Take those off whatever interface carries them; the ones that were there. Needs root."""
    from pyroute2 import IPRoute

    removed = []
    with IPRoute() as netlink:
        for message in netlink.get_addr():
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text and str(ip_address(text)) in addresses:
                netlink.addr("del", index=message["index"], address=text, prefixlen=message["prefixlen"])
                removed.append(str(ip_address(text)))
    return removed


def find_node(cluster: Cluster, explicit: str | None = None) -> Node:
    """The node that this host is: `explicit` (--node), else LBHA_NODE, else the one whose address it has.

    Raises ConfigError when the name is not in the file, or when no node's address, or more than one's,
    is on this host. A node that its peers do not list would advertise all the same: two holders.
    """
    names = ", ".join(node.name for node in cluster.nodes)
    wanted, said_by = explicit, "--node"
    if wanted is None and os.environ.get("LBHA_NODE"):
        wanted, said_by = os.environ["LBHA_NODE"], "LBHA_NODE"
    if wanted is not None:
        for node in cluster.nodes:
            if node.name == wanted:
                return node
        raise ConfigError(f"{said_by} {shown(wanted)} is not in [nodes]; use one of: {names}")
    own = own_addresses()
    mine = [node for node in cluster.nodes if any(address in own for address in node.addresses)]
    if len(mine) == 1:
        return mine[0]
    if mine:
        both = " and ".join(node.name for node in mine)
        raise ConfigError(
            f"this host has the addresses of {both}; say which one it is with --node or LBHA_NODE"
        )
    raise ConfigError(
        f"no address of this host is in [nodes] ({names}); add the node, or say which one it is with "
        "--node or LBHA_NODE"
    )


def interface_of(cluster: Cluster, node: Node) -> str | None:
    """The interface that carries the node's address on this host; None when this host is another one.

    `[cluster] interface` goes before it, but only where the node's address is on this host at all. Raises
    ConfigError when its name, which Linux lets hold quotes and braces, cannot stand in keepalived.conf.
    """
    found = own_addresses().get(node.address)
    if not found or cluster.interface:
        return cluster.interface if found else None
    if not is_interface(found):
        raise ConfigError(
            f"the interface {shown(found)} of {node.name} has a name that cannot stand in a configuration "
            "line; rename it to letters, digits and . _ -, or set [cluster] interface to another"
        )
    return found
