"""This host's interfaces and addresses, as the kernel has them (netlink)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of this network namespace. `up`: administratively; `carrier`: its other end is there."""

    name: str
    index: int
    mac: str
    up: bool
    carrier: bool


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface; `network` is what it makes reachable on the link."""

    interface: str
    address: str
    prefix: int

    @property
    def network(self) -> IPv4Interface | IPv6Interface:
        """The address with its prefix length."""
        return ip_interface(f"{self.address}/{self.prefix}")


@dataclass(frozen=True, slots=True)
class Links:
    """All of them."""

    interfaces: tuple[Interface, ...]
    addresses: tuple[Address, ...]

    def interface(self, name: str) -> Interface | None:
        """The interface of that name."""
        return next((each for each in self.interfaces if each.name == name), None)

    def carrying(self, address: str) -> Address | None:
        """Where that address is."""
        return next((each for each in self.addresses if each.address == address), None)

    def on(self, interface: str) -> tuple[Address, ...]:
        """The addresses of an interface."""
        return tuple(each for each in self.addresses if each.interface == interface)


def links() -> Links:
    """Ask the kernel."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        interfaces = tuple(
            Interface(
                name=str(link.get_attr("IFLA_IFNAME")),
                index=link["index"],
                mac=str(link.get_attr("IFLA_ADDRESS") or ""),
                up=link["state"] == "up",
                carrier=link.get_attr("IFLA_CARRIER") != 0,
            )
            for link in netlink.get_links()
        )
        names = {each.index: each.name for each in interfaces}
        addresses = tuple(
            Address(names.get(message["index"], ""), str(ip_address(text)), message["prefixlen"])
            for message in netlink.get_addr()
            # On a point-to-point link IFA_ADDRESS is the far end; IFA_LOCAL is ours.
            if (text := message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
        )
    return Links(interfaces, addresses)
