"""Recorded statuses of a cluster of cp1..cpN, for tests of what is told of them."""

from __future__ import annotations

from dataclasses import replace

from lbha.config import parse
from lbha.facts import (
    Applied,
    ClientFacts,
    Decision,
    EtcdFacts,
    EtcdMember,
    HaproxyFacts,
    Observation,
    Peer,
    PoolFacts,
    Report,
    Server,
    Status,
    VrrpFacts,
)
from lbha.health import Health, Settled
from lbha.model import Cluster, Endpoint
from lbha.priority import agent_terms, decide

NOW = 1_780_000_000.0
OFF = "/etc/lbha/pki/node.crt is missing; lbha pki makes it"


def cluster(nodes: int = 3, *, failback: bool = False, six: bool = False) -> Cluster:
    """Of `nodes` nodes with an apiserver and etcd on each."""
    net = "fd00::" if six else "10.0.0."
    lines = ['[cluster]\nname = "prod"', f'vip = "{net}100"', "[nodes]"]
    lines += [f'cp{n} = "{net}{10 + n}"' for n in range(1, nodes + 1)]
    lines += ['[services.apiserver]\nkind = "kube-apiserver"', '[services.etcd]\nkind = "etcd"', "[failover]"]
    return parse("\n".join([*lines, f"failback = {str(failback).lower()}", ""]))


def report(
    n: int,
    nodes: int = 3,
    *,
    holds: bool = False,
    up: bool = True,
    serving: bool = True,
    local: bool = True,
    drained: bool = False,
    failback: bool = False,
    at: float = NOW,
) -> Report:
    """What cp`n` says, its decision made by the real rules."""
    health = Health(
        Settled(up, 0.0),
        "haproxy has ended",
        Settled(serving, 0.0),
        "every service has a live server" if serving else "no live server: etcd",
        {"etcd": Settled(local, 0.0)},
    )
    seen = Observation(0.0, HaproxyFacts(None), {}, holds, drained, False)
    decision = decide(agent_terms(nodes, failback=failback), n - 1, seen, health)
    state = "FAULT" if not up else "MASTER" if holds else "BACKUP"
    vrrp = VrrpFacts(state, decision.priority if up else None)
    return Report(f"cp{n}", at, "0.2.0", "5e1f", holds, decision, drained, vrrp)


def server(service: str, n: int, status: str = "UP", reason: str = "L7OK 200", *, six: bool = False) -> Server:
    """The server of `service` on cp`n`."""
    port = 6443 if service == "apiserver" else 2379
    address = f"fd00::{10 + n}" if six else f"10.0.0.{10 + n}"
    return Server(service, f"cp{n}", Endpoint(address, port), status, reason, NOW - 7200, 12)


def status(
    nodes: int = 3, own: int = 1, holder: int = 1, *, failback: bool = False, six: bool = False
) -> Status:
    """A healthy cluster, as cp`own` sees it while cp`holder` holds the VIP."""
    reports = {n: report(n, nodes, holds=n == holder, failback=failback) for n in range(1, nodes + 1)}
    services = ("apiserver", "etcd")
    servers = tuple(server(service, n, six=six) for service in services for n in reports)
    members = tuple(EtcdMember("etcd", server("etcd", n, six=six).endpoint, True, False, None) for n in reports)
    return Status(
        cluster="prod",
        vips=("fd00::100" if six else "10.0.0.100",),
        report=reports[own],
        started=NOW - 86400,
        haproxy=HaproxyFacts(None, 4711, dict.fromkeys(services, nodes), servers),
        etcd=(EtcdFacts("etcd", True, NOW - 7200, members),),
        pools=tuple(PoolFacts(service, nodes, 0.0, None) for service in services),
        peers=tuple(Peer(f"cp{n}", each, NOW - 0.3, None) for n, each in reports.items() if n != own),
        peers_off=None,
        drain=None,
        quarantined=0.0,
        applied=Applied(NOW - 600, "applied", "haproxy: reloaded in 61 ms, runs 0f3c5a1b9d2e"),
        refused=None,
        old_workers=(),
        lag_ms=3.2,
        clients=ClientFacts(214),
    )


def with_report(found: Status, changed: Report) -> Status:
    """The same, but that node says `changed`."""
    if changed.node == found.report.node:
        return replace(found, report=changed)
    peers = (replace(p, report=changed) if p.node == changed.node else p for p in found.peers)
    return replace(found, peers=tuple(peers))


def with_servers(found: Status, *changed: Server) -> Status:
    """The same with these servers in place of those of their names."""
    new = {(each.service, each.name): each for each in changed}
    servers = tuple(new.pop((each.service, each.name), each) for each in found.haproxy.servers)
    servers += tuple(new.values())
    live = dict.fromkeys(found.haproxy.live, 0)
    for each in servers:
        live[each.service] += each.live
    return replace(found, haproxy=replace(found.haproxy, servers=servers, live=live))


def alone(found: Status) -> Status:
    """The same without a channel to the peers."""
    peers = tuple(Peer(peer.node, None, None, OFF) for peer in found.peers)
    return replace(found, peers=peers, peers_off=OFF)


def silent(found: Status, node: str, problem: str = "no route to host") -> Status:
    """The same, but that peer has not been heard for 12 s."""
    peers = (replace(p, heard=NOW - 12, problem=problem) if p.node == node else p for p in found.peers)
    return replace(found, peers=tuple(peers))


def decided(found: Report, **changes: object) -> Report:
    """A report whose decision differs in these."""
    decision: Decision = replace(found.decision, **changes)  # type: ignore[arg-type]
    return replace(found, decision=decision)
