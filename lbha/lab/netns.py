"""The lab's network: a namespace a node, one for the client, and a switch between them. Needs root.

Every host has `eth0` on a bridge that lives in a namespace of its own, so two labs never see each other
although they use the same addresses. The switch side of a node's cable is `p-NODE` in the switch's namespace.
"""

from __future__ import annotations

from pyroute2 import IPRoute, NetNS, netns

from lbha.lab.spec import LabSpec
from lbha.lab.wire import NETNS_DIR, forward, port

CLIENT_ADDRESS = "10.77.0.200"
CLIENT_ADDRESS6 = "fd77::200"
_IFA_F_NODAD = 0x02
_BRIDGE = "br0"
_CLIENT = "client"


def namespaces(spec: LabSpec) -> tuple[str, ...]:
    """Every namespace of the lab: the switch, the client, the nodes."""
    return (spec.switch_netns, spec.client_netns, *(node.netns for node in spec.nodes))


def build(spec: LabSpec) -> None:
    """Make the namespaces and cables."""
    for name in namespaces(spec):
        netns.create(name)
    with NetNS(spec.switch_netns) as switch:
        switch.link("add", ifname=_BRIDGE, kind="bridge")
        bridge = switch.link_lookup(ifname=_BRIDGE)[0]
        switch.link("set", index=bridge, state="up")
        for node in spec.nodes:
            _cable(switch, bridge, port(node), node.netns, node.address, node.address6)
        _cable(switch, bridge, f"p-{_CLIENT}", spec.client_netns, CLIENT_ADDRESS, CLIENT_ADDRESS6)
    for node in spec.nodes:
        forward(node)


def _cable(switch: IPRoute, bridge: int, near: str, far_netns: str, address: str, address6: str) -> None:
    switch.link(
        "add", ifname=near, kind="veth", peer={"ifname": "eth0", "net_ns_fd": str(NETNS_DIR / far_netns)}
    )
    index = switch.link_lookup(ifname=near)[0]
    switch.link("set", index=index, master=bridge, state="up")
    with NetNS(far_netns) as host:
        host.link("set", index=1, state="up")
        eth0 = host.link_lookup(ifname="eth0")[0]
        host.addr("add", index=eth0, address=address, prefixlen=24, broadcast="10.77.0.255")
        host.addr("add", index=eth0, address=address6, prefixlen=64, flags=_IFA_F_NODAD)
        host.link("set", index=eth0, state="up")


def destroy(names: tuple[str, ...]) -> None:
    """Remove those namespaces, and with them their links and addresses. Absent ones are no error."""
    for name in names:
        if (NETNS_DIR / name).exists():
            netns.remove(name)
