"""Ports: who has those that haproxy and the agents need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbha import engine, listen
from lbha.doctor.context import Context
from lbha.doctor.model import Finding, NotChecked, Severity
from lbha.model import Cluster, Endpoint, Listen, Mode, Node

_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens where; `program` is "" where only root may know."""

    endpoint: Endpoint
    program: str
    pid: int | None


def ports(context: Context) -> Iterator[Finding]:
    """Every listening TCP socket of this network namespace."""
    redirected = {redirect.service for redirect in listen.find_redirects(context.cluster)}
    nft = engine.installed("nft") is not None
    yield from judge_ports(context.cluster, context.node, listeners(), redirected, nft=nft)


def judge_ports(
    cluster: Cluster, node: Node, found: Sequence[Listener], redirected: set[str], *, nft: bool
) -> Iterator[Finding]:
    """`redirected`: the services whose port another program has, or had; `nft`: nftables is installed."""
    for service in cluster.services:
        port = service.redirect_port if service.name in redirected else service.port
        where = f"[services.{service.name}] {'redirect_port' if service.name in redirected else 'port'}"
        for taken in _others(found, cluster.vips, port):
            clash = f"{_told(taken)}, where haproxy must listen ({where} = {port})"
            key = "redirect_port" if service.name in redirected else "port"
            cure = f'listen = "redirect" in [services.{service.name}]'
            if service.name in redirected or service.listen is not Listen.VIP:
                cure = f"another {key}, or move that program to the node's address {node.address}"
            yield Finding("ports", Severity.FATAL, clash, cure)
        if service.name in redirected and not nft:
            yield Finding(
                "ports",
                Severity.FATAL,
                f"{service.name} needs a redirect, because another program has port {service.port} on every "
                "address, and nft is not installed",
                "apt-get install nftables",
            )
    for taken in _others(found, (cluster.metrics.address,), cluster.metrics.port):
        yield Finding(
            "ports",
            Severity.FATAL,
            f"{_told(taken)}, where haproxy serves its metrics",
            "[metrics] address: another port",
        )
    if cluster.health.mode is Mode.AGENT and len(cluster.nodes) > 1:
        for taken in _others(found, (node.address,), cluster.peers.port, ours=("lbha", "python")):
            yield Finding(
                "ports",
                Severity.WARNING,
                f"{_told(taken)}, where the agent answers the others",
                "[peers] port: another one, on all nodes",
            )


def _others(
    found: Sequence[Listener], addresses: Sequence[str], port: int, ours: tuple[str, ...] = ("haproxy",)
) -> list[Listener]:
    """Who else listens at one of these addresses, or at every one."""
    return [
        each
        for each in found
        if each.endpoint.port == port
        and (each.endpoint.address in addresses or each.endpoint.address in _EVERYWHERE)
        and not each.program.startswith(ours)
    ]


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
