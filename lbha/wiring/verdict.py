"""Does each client go through the VIP? Pure: resolving names is a function that is handed in.

Some may go past it, because something else takes over for them: an apiserver that asks its own node's etcd
(haproxy's check of /readyz follows), a controller-manager or scheduler that asks its own node's apiserver
(another takes its lease). A master's kubelet may too: kubeadm puts it there since 1.33, and from 1.36 always.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

from lbha.discovery.endpoints import one_line
from lbha.found import is_address
from lbha.model import Cluster, Endpoint, Kind, Service
from lbha.wiring.found import Contact, Found
from lbha.wiring.targets import Absent, members

_OWN_IS_FINE = {
    "kube-apiserver": "its own node's etcd: when that fails, haproxy sends clients to another apiserver",
    "kube-controller-manager": "its own node's apiserver: when that fails, another takes its lease",
    "kube-scheduler": "its own node's apiserver: when that fails, another takes its lease",
    "kubelet": "its own node's apiserver (kubeadm since 1.33): when that fails, this node is NotReady",
}

_NEVER_THE_VIP = re.compile(r"kubernetes(\.default(\.svc.*)?)?$|localhost\b")
"""Names in an apiserver's certificate that lead to the `kubernetes` service, or home."""

CLIENTS = (
    "kubelet",
    "kube-proxy",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-apiserver",
    "flanneld",
    "etcd",
)
"""What is looked for on every node."""

Resolve = Callable[[str], tuple[str, ...]]
"""The addresses of a host name; none when it has none."""


class Way(StrEnum):
    """`PAST` and `BAD` are wrong: `lbha wiring --check` exits 1."""

    VIP = "vip"
    OWN = "own"
    MEMBERS = "members"
    SERVICE = "service"
    PAST = "PAST"
    BAD = "BAD"
    ABSENT = "-"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    way: Way
    client: str
    text: str
    sources: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """It is to be mended."""
        return self.way in (Way.PAST, Way.BAD)


@dataclass(frozen=True, slots=True)
class Here:
    """The node that is looked at: its own addresses, without VIPs."""

    addresses: frozenset[str]
    resolve: Resolve


def judge(cluster: Cluster, found: Found, here: Here) -> list[Finding]:
    """Every client that was found, in the order of CLIENTS, then certificates, then what could not be read."""
    findings = [_contact(cluster, contact, sources, here) for contact, sources in _merged(found.contacts)]
    findings += _etcd(cluster, found, here)
    seen = {each.client for each in findings}
    findings += [Finding(Way.ABSENT, client, "not found here") for client in CLIENTS if client not in seen]
    rank = {client: index for index, client in enumerate(CLIENTS)}
    findings.sort(key=lambda each: rank.get(each.client, len(rank)))
    findings += _certificates(cluster, found, here)
    return findings + [
        Finding(Way.BAD, "unreadable", one_line(f"{file}: {why}")) for file, why in found.problems
    ]


def _merged(contacts: Iterable[Contact]) -> list[tuple[Contact, tuple[str, ...]]]:
    """A kubeconfig, the manifest and the process that use it mostly say the same: one line."""
    merged: dict[tuple[str, Kind, tuple[str, ...]], list[Contact]] = {}
    for each in contacts:
        merged.setdefault((each.client, each.kind, each.urls), []).append(each)
    return [(same[0], tuple(dict.fromkeys(each.source for each in same))) for same in merged.values()]


def _contact(cluster: Cluster, contact: Contact, sources: tuple[str, ...], here: Here) -> Finding:
    services = [each for each in cluster.services if each.kind is contact.kind]
    shown = one_line(",".join(contact.urls))

    def say(way: Way, text: str) -> Finding:
        return Finding(way, contact.client, f"{shown}: {text}", sources)

    if not services:
        return say(Way.ABSENT, f'lbha.toml has no service of kind "{contact.kind}"')
    places = [_places(url, here.resolve) for url in contact.urls]
    if any(not place for place in places):
        return say(Way.BAD, "no address, or its name does not resolve")
    everywhere = {at for place in places for at in place}
    through = {at for at in everywhere if at.address in cluster.vips}
    listed = everywhere - through
    ports = sorted({each.port for each in services})
    if any(at.port not in ports for at in through):
        return say(Way.PAST, f"the VIP at another port than {' or '.join(map(str, ports))}")
    if through and not listed:
        return say(Way.VIP, "the VIP")
    if contact.kind is Kind.ETCD and len(contact.urls) > 1:
        return say(Way.MEMBERS, _listed(cluster, services[0], listed))
    if through:
        return say(Way.PAST, f"the VIP, but its name is {_some(listed)} as well")
    if contact.client in _OWN_IS_FINE and all(_own(cluster, at.address, here) for at in listed):
        return say(Way.OWN, _OWN_IS_FINE[contact.client])
    owners = [node.name for node in cluster.nodes if any(at.address in node.addresses for at in listed)]
    if contact.in_cluster and not owners:
        return say(Way.SERVICE, "the kubernetes service, which kube-proxy spreads over all apiservers")
    of = f" of {owners[0]}" if len(owners) == 1 else ""
    return say(Way.PAST, f"past the VIP: when this one{of} fails, {contact.client} fails with it")


def _listed(cluster: Cluster, etcd: Service, listed: set[Endpoint]) -> str:
    try:
        known = {each.client for each in members(cluster, etcd)}
    except Absent:
        return "members, between which it chooses itself"
    missing, unknown = known - listed, listed - known
    told = ["members, between which it chooses itself"]
    told += [f"without {_some(missing)}"] if missing else []
    told += [f"with {_some(unknown)}, not in lbha.toml"] if unknown else []
    return "; ".join(told)


def _some(endpoints: set[Endpoint]) -> str:
    return ", ".join(str(each) for each in sorted(endpoints, key=lambda each: each.sort_key))


def _etcd(cluster: Cluster, found: Found, here: Here) -> Iterator[Finding]:
    """A member must be reached at its own address: the VIP would be each of them in turn."""
    told: dict[tuple[str, ...], list[str]] = {}
    for each in found.etcd:
        told.setdefault(each.urls, []).append(each.source)
    for urls, sources in told.items():
        at = {place.address for url in urls for place in _places(url, here.resolve)}
        shown = one_line(",".join(urls))
        if at & set(cluster.vips):
            text = f"{shown}: it advertises the VIP; a member must advertise its own address"
            yield Finding(Way.BAD, "etcd", text, tuple(sources))
        elif urls:
            yield Finding(Way.OWN, "etcd", f"{shown}: a member at its own address", tuple(sources))


def unnamed(names: Iterable[str], vips: Iterable[str], resolve: Resolve) -> list[str]:
    """The VIPs that a certificate with these names is not good for. A host name that leads there does as well:
    clients use it then."""
    literal = {str(ip_address(name)) for name in names if is_address(name)}
    missing = [vip for vip in vips if vip not in literal]
    hosts = [name for name in names if not is_address(name) and not _NEVER_THE_VIP.match(name)]
    return [] if any(set(missing) <= set(resolve(host)) for host in hosts if missing) else missing


def _certificates(cluster: Cluster, found: Found, here: Here) -> Iterator[Finding]:
    kinds = {each.kind for each in cluster.services}
    served = {"kube-apiserver": Kind.KUBE_APISERVER, "etcd": Kind.ETCD}
    for each in found.certificates:
        if served[each.program] not in kinds:
            continue
        missing = unnamed(each.names, cluster.vips, here.resolve)
        way, text = Way.VIP, f"names {', '.join(cluster.vips)}, or a host name that leads there"
        if missing:
            way, text = Way.BAD, f"does not name {', '.join(missing)}: clients that verify it refuse the VIP"
        yield Finding(way, f"{each.program} certificate", text, (each.source,))


def _places(url: str, resolve: Resolve) -> list[Endpoint]:
    """Address and port of a URL (`host:port` too), a host name resolved; empty when it has none."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return []
    try:
        return [Endpoint(str(ip_address(host)), port)]
    except ValueError:
        return [Endpoint(address, port) for address in (resolve(host) if host else ())]


def _own(cluster: Cluster, address: str, here: Here) -> bool:
    """Loopback counts on the nodes of lbha.toml alone: on a worker a proxy may listen there."""
    master = any(own in here.addresses for node in cluster.nodes for own in node.addresses)
    return address in here.addresses or (master and ip_address(address).is_loopback)
