"""Ports: who has those that haproxy and the agents need."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbha import engine, listen
from lbha.agent.client import SOCKET
from lbha.doctor.context import Context
from lbha.doctor.model import Finding, NotChecked, Severity
from lbha.errors import EngineError
from lbha.haproxy_socket import Socket
from lbha.model import Cluster, Endpoint, Listen, Mode, Node, Paths

_PROCESS = re.compile(r"^(\d+)\s+(?:master|worker)\s", re.MULTILINE)
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens where; `program` is "" where only root may know."""

    endpoint: Endpoint
    program: str
    pid: int | None


def ports(context: Context) -> Iterator[Finding]:
    """Every listening TCP socket of this network namespace."""
    cluster = context.cluster
    redirected = {redirect.service for redirect in listen.find_redirects(cluster)}
    nft = engine.installed("nft") is not None
    haproxy, agent = _own_haproxy(cluster.paths), _own_agent(cluster.paths)
    others = [
        each
        for each in listeners()
        # Where haproxy's master does not say which ones are its own, every haproxy is taken for it.
        if each.pid not in haproxy | agent and not (each.program == "haproxy" and not haproxy)
    ]
    yield from judge_ports(cluster, context.node, others, redirected, nft=nft)


def judge_ports(
    cluster: Cluster, node: Node, others: Sequence[Listener], redirected: set[str], *, nft: bool
) -> Iterator[Finding]:
    """`others`: who listens besides haproxy and the agent; `redirected`: the services whose port another
    program has, or had; `nft`: nftables is installed."""
    for service in cluster.services:
        redirects = service.name in redirected
        port, key = (service.redirect_port, "redirect_port") if redirects else (service.port, "port")
        for taken in _at(others, cluster.vips, port):
            yield Finding(
                "ports",
                Severity.FATAL,
                f"{_told(taken)}, where haproxy must listen ([services.{service.name}] {key} = {port})",
                f"another {key}, or move that program to the node's address {node.address}"
                if redirects or service.listen is not Listen.VIP
                else f'listen = "redirect" in [services.{service.name}]',
            )
        if redirects and not nft:
            yield Finding(
                "ports",
                Severity.FATAL,
                f"{service.name} needs a redirect, because another program has port {service.port} on every "
                "address, and nft is not installed",
                "apt-get install nftables",
            )
    for taken in _at(others, (cluster.metrics.address,), cluster.metrics.port):
        yield Finding(
            "ports",
            Severity.FATAL,
            f"{_told(taken)}, where haproxy serves its metrics",
            "[metrics] address: another port",
        )
    if cluster.health.mode is Mode.AGENT and len(cluster.nodes) > 1:
        for taken in _at(others, (node.address,), cluster.peers.port):
            yield Finding(
                "ports",
                Severity.WARNING,
                f"{_told(taken)}, where the agent answers the others",
                "[peers] port: another one, on all nodes",
            )


def _at(found: Sequence[Listener], addresses: Sequence[str], port: int) -> list[Listener]:
    """Who listens at one of these addresses, or at every one: [::] is of both families, 0.0.0.0 of IPv4."""
    everywhere = {"::", *("0.0.0.0" for address in addresses if ":" not in address)}
    return [
        each
        for each in found
        if each.endpoint.port == port and (each.endpoint.address in {*addresses, *everywhere})
    ]


def _own_haproxy(paths: Paths) -> frozenset[int]:
    """The master and the workers behind the master socket; none where nobody answers."""
    try:
        answer = Socket(paths.haproxy_master_socket).ask("show proc", 1.0)
    except EngineError:
        return frozenset()
    return frozenset(int(pid) for pid in _PROCESS.findall(answer))


def _own_agent(paths: Paths) -> frozenset[int]:
    """The agent, by the kernel's word on who listens on its socket (SO_PEERCRED); empty where nobody does."""
    with socket.socket(socket.AF_UNIX) as wire:
        try:
            wire.settimeout(1.0)
            wire.connect(f"{paths.run_dir}/{SOCKET}")
        except OSError:
            return frozenset()
        return frozenset(_CREDENTIALS.unpack(wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[:1])


def _told(taken: Listener) -> str:
    who = f"{taken.program} (pid {taken.pid})" if taken.pid else "another program"
    return f"{who} listens on {taken.endpoint}"


def listeners() -> tuple[Listener, ...]:
    """Every listening TCP socket of this network namespace."""
    import psutil

    found = []
    for each in psutil.net_connections(kind="tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr:
            try:
                name = psutil.Process(each.pid).name() if each.pid else ""
            except psutil.Error:
                name = ""
            found.append(Listener(Endpoint(each.laddr.ip, each.laddr.port), name, each.pid))
    if found and all(each.pid is None for each in found):
        raise NotChecked("only root may see whose sockets these are")
    return tuple(found)


def local_ports(context: Context) -> Iterator[Finding]:
    """The kernel's range for outgoing connections, and what is kept out of it."""
    net = Path("/proc/sys/net/ipv4")
    low, high = (int(word) for word in (net / "ip_local_port_range").read_text().split())
    reserved = (net / "ip_local_reserved_ports").read_text().strip()
    redirected = {redirect.service for redirect in listen.find_redirects(context.cluster)}
    yield from judge_local_ports(context.cluster, low, high, reserved, redirected)


def judge_local_ports(
    cluster: Cluster, low: int, high: int, reserved: str, redirected: set[str]
) -> Iterator[Finding]:
    """`low` to `high` is the range, `reserved` as sysctl writes it: `8406,16443-16450`."""
    needed = {service.redirect_port for service in cluster.services if service.name in redirected}
    needed |= {service.port for service in cluster.services if service.name not in redirected}
    needed |= {cluster.metrics.port, cluster.peers.port}
    kept = _ranges(reserved)
    at_risk = sorted(
        port
        for port in needed
        if low <= port <= high and not any(first <= port <= last for first, last in kept)
    )
    if at_risk:
        told = ",".join(map(str, at_risk))
        yield Finding(
            "local-ports",
            Severity.WARNING,
            f"net.ipv4.ip_local_port_range is {low} to {high}: an outgoing connection of any program may have "
            f"port {told} just when haproxy or the agent starts, which then cannot listen",
            f"sysctl -w net.ipv4.ip_local_reserved_ports={','.join(filter(None, (reserved, told)))}, and the "
            "same in /etc/sysctl.d",
        )


def _ranges(text: str) -> list[tuple[int, int]]:
    parts = [part.partition("-") for part in text.split(",") if part]
    return [(int(first), int(last or first)) for first, _, last in parts]
