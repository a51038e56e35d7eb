"""The first lbha.toml of a cluster: what must be said, and in comments what most operators ask about. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lbha.config import default_virtual_router_id
from lbha.errors import ConfigError
from lbha.found import FoundApiserver, FoundEtcd, is_address
from lbha.model import Endpoint, Tls


@dataclass(frozen=True, slots=True)
class Draft:
    """What goes into the file, unchecked so far. `nodes`: the preferred first, each with its addresses."""

    name: str
    vips: tuple[str, ...]
    nodes: Mapping[str, tuple[str, ...]]
    apiserver_port: int = 6443
    apiserver_tls: Tls | None = None
    etcd_port: int = 2379
    etcd_backends: tuple[str, ...] = ()
    etcd_tls: Tls | None = None


def draft(
    name: str,
    vips: Sequence[str],
    nodes: Mapping[str, tuple[str, ...]],
    etcd: FoundEtcd | None,
    apiserver: FoundApiserver | None,
    kubeadm: Mapping[str, Tls],
) -> Draft:
    """What was said and what was found: what was said goes first.

    `kubeadm` are TLS files of kubeadm's by service, where this host has them. Raises ConfigError where
    something is missing and nothing that was found says it.
    """
    if not nodes and etcd is not None:
        nodes = {member: (_literal(member, host),) for member, host in etcd.members.items()}
    if not nodes:
        raise ConfigError("no nodes; write --node cp1=10.0.0.11 for each, or --from-etcd-env FILE")
    if not vips:
        vips = (_vip(apiserver, nodes),)
    apiserver_tls = (apiserver.tls if apiserver else None) or kubeadm.get("apiserver")
    etcd_tls = etcd.tls if etcd else kubeadm.get("etcd")
    return Draft(
        name,
        tuple(vips),
        nodes,
        apiserver.port if apiserver else 6443,
        apiserver_tls,
        etcd.port if etcd else 2379,
        _backends(etcd, nodes) if etcd else (),
        etcd_tls,
    )


def _literal(member: str, host: str) -> str:
    if not is_address(host):
        raise ConfigError(
            f"ETCD_INITIAL_CLUSTER has the host name {host} for {member}, and [nodes] needs addresses; "
            "name every node with --node"
        )
    return host


def _vip(apiserver: FoundApiserver | None, nodes: Mapping[str, tuple[str, ...]]) -> str:
    if apiserver is None:
        raise ConfigError("no VIP; write --vip 10.0.0.100, or --from-kubeconfig FILE")
    host = apiserver.host
    cure = "choose a free address of the nodes' network and write it with --vip"
    if not is_address(host):
        raise ConfigError(f"the kubeconfig's server is {host}, a host name; write its address with --vip")
    owner = next((name for name, addresses in nodes.items() if host in addresses), None)
    if owner is not None:
        raise ConfigError(f"the kubeconfig's server {host} is {owner} itself, not a VIP; {cure}")
    return host


def _backends(etcd: FoundEtcd, nodes: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The members' endpoints; empty where they are the nodes, which is the default."""
    found = [nodes[name][0] if name in nodes else _literal(name, host) for name, host in etcd.members.items()]
    here = {address for addresses in nodes.values() for address in addresses}
    if len(found) == len(nodes) and set(found) <= here:
        return ()
    return tuple(str(Endpoint(address, etcd.port)) for address in found)


def text(wanted: Draft) -> str:
    """The file. `lbha.config.parse` has the last word on what it says."""
    lines = [
        "# lbha's one file: the same on every node. Written by `lbha init`; yours from now on.",
        "# A # hides a key that shows its default or an example; `lbha config show` prints every key there is.",
        "",
        "[cluster]",
        f"name = {_toml(wanted.name)}",
        _vips(wanted.vips),
        "# Must differ from every other VRRP router on this network segment; by default a hash of the name:",
        f"# virtual_router_id = {default_virtual_router_id(wanted.name)}",
        "# Where the VIP goes; by default the interface that carries the node's own address:",
        '# interface = "eth0"',
        "",
        "# Every node that may hold the VIP, the preferred one first. A node finds itself by its address.",
        "[nodes]",
        *(f"{_key(name)} = {_one_or_list(addresses)}" for name, addresses in wanted.nodes.items()),
        "",
        "# What clients reach on the VIP. Servers are the nodes, unless `backends` names others:",
        '# backends = ["10.0.0.21", …], "etcd-members", "kubernetes", "etcd-env:FILE", "dns-srv:NAME"',
        "[services.apiserver]",
        'kind = "kube-apiserver"',
        *_apiserver(wanted),
        "",
        "[services.etcd]",
        'kind = "etcd"',
        *_etcd(wanted),
        "",
        "[failover]",
        "# balanced: a silent holder is replaced after 0.6 s; fast: 0.3 s; patient: 3 s.",
        '# profile = "balanced"',
        "# Have nftables drop VRRP from everybody but the nodes: VRRP version 3 has no authentication.",
        "# vrrp_filter = true",
        "",
        "[health]",
        "# script: no agent; keepalived runs `lbha check` each second, and a timer runs `lbha apply`.",
        '# mode = "agent"',
    ]
    return "\n".join(lines) + "\n"


def _vips(vips: tuple[str, ...]) -> str:
    return f"vip = {_toml(vips[0])}" if len(vips) == 1 else f"vips = {_list(vips)}"


def _apiserver(wanted: Draft) -> list[str]:
    lines = []
    if wanted.apiserver_port != 6443:
        lines += [f"port = {wanted.apiserver_port}", "target_port = 6443"]
    lines += [
        "# Where lbha comes before kubeadm, whose apiserver listens on 0.0.0.0:6443 (one that runs is seen):",
        '# listen = "redirect"',
    ]
    if wanted.apiserver_tls:
        return [*lines, _tls(wanted.apiserver_tls)]
    return [
        *lines,
        "# Checks speak TLS; to have them verify the servers:",
        '# tls = { ca = "/etc/kubernetes/pki/ca.crt" }',
    ]


def _etcd(wanted: Draft) -> list[str]:
    lines = []
    if wanted.etcd_port != 2379 and not wanted.etcd_backends:
        lines += ["port = 2379", f"target_port = {wanted.etcd_port}"]
    if wanted.etcd_backends:
        lines.append(f"backends = {_list(wanted.etcd_backends)}")
    if wanted.etcd_tls:
        return [*lines, _tls(wanted.etcd_tls)]
    return [
        *lines,
        "# Checks speak plain HTTP unless they have files for TLS, on every node; kubeadm's:",
        f"# {_tls(KUBEADM['etcd'])}",
    ]


KUBEADM = {
    "apiserver": Tls("/etc/kubernetes/pki/ca.crt"),
    "etcd": Tls(
        "/etc/kubernetes/pki/etcd/ca.crt",
        "/etc/kubernetes/pki/etcd/healthcheck-client.crt",
        "/etc/kubernetes/pki/etcd/healthcheck-client.key",
    ),
}
"""Where kubeadm keeps what checks need, on every control plane node."""


def _tls(tls: Tls) -> str:
    parts = [f"{name} = {_toml(value)}" for name in ("ca", "cert", "key") if (value := getattr(tls, name))]
    return f"tls = {{ {', '.join(parts)} }}"


def _one_or_list(values: tuple[str, ...]) -> str:
    return _toml(values[0]) if len(values) == 1 else _list(values)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_toml, values))}]"


def _key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isascii() and bare.isalnum() else _toml(name)


def _toml(value: str) -> str:
    """A basic string: JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False)
