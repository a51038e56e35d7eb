"""Settings of the kernel that lbha needs, or is hurt by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lbha import listen
from lbha.doctor.context import Context
from lbha.doctor.links import Links
from lbha.doctor.model import DoesNotApply, Finding, Severity

FULL = 0.9
"""Of the kernel's table of connections."""

_SYS = Path("/proc/sys/net")


def arp(context: Context) -> Iterator[Finding]:
    """How this host answers for its IPv4 addresses, and what it believes of others'."""
    if all(":" in vip for vip in context.cluster.vips):
        raise DoesNotApply("no IPv4 VIP")
    name = context.interface.name
    settings = {
        key: max(_number("ipv4", "all", key), _number("ipv4", name, key))  # the kernel takes the greater one
        for key in ("arp_ignore", "drop_gratuitous_arp")
    }
    yield from judge_arp(name, **settings)


def judge_arp(interface: str, *, arp_ignore: int, drop_gratuitous_arp: int) -> Iterator[Finding]:
    """The settings in force on the VIP's interface (Linux, ip-sysctl)."""
    if arp_ignore >= 8:
        yield Finding(
            "arp",
            Severity.ERROR,
            f"arp_ignore = {arp_ignore} on {interface}: this host answers for no address, so nobody finds the "
            "VIP",
            f"sysctl -w net.ipv4.conf.{interface}.arp_ignore=0 net.ipv4.conf.all.arp_ignore=0",
        )
    if drop_gratuitous_arp:
        yield Finding(
            "arp",
            Severity.WARNING,
            f"drop_gratuitous_arp = 1 on {interface}: this host does not learn that the VIP has moved, and "
            "its own clients go on sending to the old holder for up to a minute",
            f"sysctl -w net.ipv4.conf.{interface}.drop_gratuitous_arp=0 "
            "net.ipv4.conf.all.drop_gratuitous_arp=0",
        )


def reverse_path(context: Context) -> Iterator[Finding]:
    """Strict reverse path filtering, on a host with several ways out."""
    if all(":" in vip for vip in context.cluster.vips):
        raise DoesNotApply("no IPv4 VIP")
    names = sorted({each.interface for each in context.links.addresses if ":" not in each.address})
    values = {
        name: max(_number("ipv4", "all", "rp_filter"), _number("ipv4", name, "rp_filter")) for name in names
    }
    yield from judge_reverse_path(context.links, values)


def judge_reverse_path(links: Links, rp_filter: dict[str, int]) -> Iterator[Finding]:
    """`rp_filter` in force, by interface with an IPv4 address."""
    ways = sorted(name for name in rp_filter if name != "lo" and (found := links.interface(name)) and found.up)
    strict = [name for name in ways if rp_filter[name] == 1]
    if len(ways) > 1 and strict:
        yield Finding(
            "reverse-path",
            Severity.HINT,
            f"rp_filter = 1 (strict) on {', '.join(strict)}, and this host has {len(ways)} ways out: a client "
            "that reaches the VIP over another interface than the answer would take is dropped without a word",
            f"rp_filter = 2 there (loose), where clients come over several: sysctl -w "
            f"net.ipv4.conf.{strict[0]}.rp_filter=2",
        )


def forwarding(context: Context) -> Iterator[Finding]:
    """Whether this host passes on what arrives here for a VIP that has just left."""
    families = sorted({"ipv6" if ":" in vip else "ipv4" for vip in context.cluster.vips})
    name = context.interface.name
    yield from judge_forwarding(name, {each: _number(each, name, "forwarding") for each in families})


def judge_forwarding(interface: str, settings: dict[str, int]) -> Iterator[Finding]:
    """`forwarding` of the VIP's interface, by family."""
    off = [family for family, value in settings.items() if not value]
    if off:
        keys = " ".join(f"net.{family}.conf.all.forwarding=1" for family in off)
        yield Finding(
            "forwarding",
            Severity.HINT,
            f"{interface} forwards no {' and no '.join(off)}: when haproxy dies here, a client that connects "
            "in the 30 ms until the VIP has moved gets no answer, and tries again after 1 s",
            f"sysctl -w {keys} (kubeadm demands it of every node)",
        )


def ipv6(context: Context) -> Iterator[Finding]:
    """Whether IPv6 is on where an IPv6 VIP goes."""
    yield from judge_ipv6(context.cluster.vips, context.interface.name, _disabled(context.interface.name))


def judge_ipv6(vips: tuple[str, ...], interface: str, disabled: bool) -> Iterator[Finding]:
    """`disabled`: disable_ipv6 is set there, or the kernel has no IPv6."""
    six = [vip for vip in vips if ":" in vip]
    if not six:
        raise DoesNotApply("no IPv6 VIP")
    if disabled:
        yield Finding(
            "ipv6",
            Severity.FATAL,
            f"IPv6 is disabled on {interface}, and {', '.join(six)} is a VIP: keepalived cannot add it",
            f"sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0, or take {', '.join(six)} out of [cluster] "
            "vips",
        )


def _disabled(interface: str) -> bool:
    try:
        return _number("ipv6", interface, "disable_ipv6") == 1
    except FileNotFoundError:
        return True


def conntrack_room(context: Context) -> Iterator[Finding]:
    """How full the kernel's table of connections is."""
    try:
        count, most = (
            int((_SYS / "netfilter" / f"nf_conntrack_{key}").read_text()) for key in ("count", "max")
        )
    except FileNotFoundError:
        raise DoesNotApply("the kernel tracks no connections here") from None
    yield from judge_room(count, most, redirects=bool(listen.find_redirects(context.cluster)))


def judge_room(count: int, most: int, *, redirects: bool) -> Iterator[Finding]:
    """`redirects`: services are behind a redirect, which needs an entry for each connection."""
    if count > FULL * most:
        yield Finding(
            "conntrack-room",
            Severity.ERROR if redirects else Severity.WARNING,
            f"the kernel tracks {count} connections of {most} at most: beyond that it drops new ones",
            f"sysctl -w net.netfilter.nf_conntrack_max={4 * most}",
        )


def _number(family: str, interface: str, key: str) -> int:
    # A VLAN's name has a dot, which stands in the path as it is.
    return int((_SYS / family / "conf" / interface / key).read_text())
