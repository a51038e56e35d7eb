"""How a lab is: read from the kernel, keepalived, haproxy and etcd themselves, not from memory."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lbha.errors import EngineError, LabError
from lbha.haproxy_socket import Socket
from lbha.haproxy_text import SLOT
from lbha.keepalived import Keepalived
from lbha.lab import wire
from lbha.lab.control import Fault, Reply, Report, UnitReport, UnitState, ask
from lbha.lab.spec import ROLES, LabNode, LabSpec, Roles
from lbha.lab.units import ETCD_PORT
from lbha.model import Paths

_HAPROXY_TIMEOUT = 1.0
_SERVER = "2"
"""The `type` of a server's row in `show stat` (management.txt, 9.1)."""


@dataclass(frozen=True, slots=True)
class VrrpStatus:
    """What keepalived says of its instance."""

    state: str
    base_priority: int
    effective_priority: int

    @property
    def change(self) -> int:
        """What the scripts' verdicts added to the base."""
        return self.effective_priority - self.base_priority


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server as one haproxy sees it."""

    backend: str
    server: str
    status: str
    check: str


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """An etcd member. `leader` is the name of the member that it follows, None without one."""

    node: str
    version: str
    leader: str | None
    learner: bool


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node. None stands for an engine that does not answer."""

    name: str
    address: str
    holds_vip: bool
    vrrp: VrrpStatus | None
    servers: tuple[ServerStatus, ...] | None
    member: MemberStatus | None
    units: tuple[UnitReport, ...]
    roles: Roles = ROLES


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A whole lab at one moment. `supervisor` says why there is no word from it, None when there is."""

    name: str
    setup: str
    vip: str
    apiserver: str
    holders: tuple[str, ...]
    etcd_leader: str | None
    nodes: tuple[NodeStatus, ...]
    faults: tuple[Fault, ...]
    supervisor: str | None


def gather(spec: LabSpec) -> LabStatus:
    """Ask everybody at once; what does not answer within a second shows as None. LabError when namespaces are
    gone."""
    problem = None
    try:
        report = ask(spec, Report(), timeout=5.0)
    except LabError as error:
        problem, report = str(error), Reply()
    with ThreadPoolExecutor(max_workers=4 * len(spec.nodes)) as pool:
        members = pool.submit(_members, spec, pool)
        vrrp = [pool.submit(_vrrp, spec, node) for node in spec.nodes]
        servers = [pool.submit(_servers, node) for node in spec.nodes]
        addresses = [pool.submit(wire.addresses, node.netns) for node in spec.nodes]
        nodes = tuple(
            NodeStatus(
                name=node.name,
                address=node.address,
                holds_vip=spec.vip in addresses[i].result(),
                vrrp=vrrp[i].result(),
                servers=servers[i].result(),
                member=members.result().get(node.name),
                units=tuple(unit for unit in report.units if unit.node == node.name),
                roles=node.roles,
            )
            for i, node in enumerate(spec.nodes)
        )
    return LabStatus(
        name=spec.name,
        setup=spec.setup,
        vip=spec.vip,
        apiserver=spec.apiserver,
        holders=tuple(node.name for node in nodes if node.holds_vip),
        etcd_leader=_agreed_leader(members.result()),
        nodes=nodes,
        faults=report.faults,
        supervisor=problem,
    )


def problems(status: LabStatus) -> list[str]:
    """What keeps a lab from being healthy and at rest, one short clause each; empty when nothing does."""
    found = [status.supervisor] if status.supervisor else []
    if len(status.holders) != 1:
        found.append(f"VIP {status.vip} is held by {' and '.join(status.holders) or 'nobody'}")
    if status.etcd_leader is None:
        found.append("etcd has no leader that all agree on")
    candidates = [node.vrrp for node in status.nodes if node.vrrp and node.vrrp.state in ("BACKUP", "MASTER")]
    best = max((vrrp.effective_priority for vrrp in candidates), default=0)
    # Scripts may add to a healthy node's priority (recipes do) or take from an unwell one's (lbha does).
    backups = [node.vrrp.change for node in status.nodes if node.vrrp and not node.holds_vip]
    usual = max((0, *backups))
    for node in status.nodes:
        found += [
            f"{unit.name} of {node.name} is {unit.state}"
            for unit in node.units
            if unit.state is not UnitState.RUNNING
        ]
        if node.member is None and "etcd" in node.roles:
            found.append(f"etcd of {node.name} does not answer")
        if "lb" not in node.roles:
            continue
        if node.vrrp is None:
            found.append(f"keepalived of {node.name} does not answer")
        elif node.vrrp.state == "FAULT":
            found.append(f"keepalived of {node.name} is in FAULT: it could not take over")
        elif node.vrrp.state not in ("BACKUP", "MASTER"):
            found.append(f"keepalived of {node.name} is in {node.vrrp.state}")
        elif node.holds_vip and node.vrrp.effective_priority < best:
            found.append(f"the VIP is about to leave {node.name}")
        elif (short := usual - node.vrrp.change) > 0:
            found.append(f"keepalived of {node.name} finds it unwell: {short} less priority than when well")
        if node.servers is None:
            found.append(f"haproxy of {node.name} does not answer")
        found += [
            f"{server.backend}/{server.server} is {server.status} for haproxy of {node.name}"
            for server in node.servers or ()
            if not server.status.startswith("UP") and server.status not in ("no check", "MAINT")
        ]
    return found


def etcd_leader(spec: LabSpec) -> str | None:
    """The node whose etcd member leads; None when there is no leader."""
    with ThreadPoolExecutor() as pool:
        return _agreed_leader(_members(spec, pool))


def _agreed_leader(members: dict[str, MemberStatus]) -> str | None:
    leaders = {member.leader for member in members.values()} - {None}
    return leaders.pop() if len(leaders) == 1 else None


def _members(spec: LabSpec, pool: ThreadPoolExecutor) -> dict[str, MemberStatus]:
    asked = spec.having("etcd")
    answers = {
        node.name: answer
        for node, answer in zip(asked, pool.map(lambda node: _endpoint(spec, node), asked), strict=True)
        if answer
    }
    names = {answer["header"]["member_id"]: name for name, answer in answers.items()}
    return {
        name: MemberStatus(
            node=name,
            version=answer.get("version", ""),
            leader=names.get(answer.get("leader", 0)),
            learner=bool(answer.get("isLearner")),
        )
        for name, answer in answers.items()
    }


def _endpoint(spec: LabSpec, node: LabNode) -> dict[str, Any] | None:
    """`etcdctl endpoint status` of one member, asked from the client's host."""
    argv = ["ip", "netns", "exec", spec.client_netns, "etcdctl", "endpoint", "status", "--write-out=json"]
    argv += [f"--endpoints=https://{node.address}:{ETCD_PORT}", f"--cacert={spec.ca}"]
    argv += [f"--cert={spec.client_cert}", f"--key={spec.client_key}", "--command-timeout=1s"]
    environment = os.environ | {"ETCDCTL_API": "3"}
    try:
        done = subprocess.run(argv, capture_output=True, timeout=5, check=False, env=environment)
        answers = json.loads(done.stdout)
        return dict(answers[0]["Status"])
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return None


def _vrrp(spec: LabSpec, node: LabNode) -> VrrpStatus | None:
    """The instance that carries the VIP, as keepalived tells it."""
    try:
        instances = Keepalived(Paths(keepalived_pid=str(node.directory / "keepalived.pid"))).state()
    except EngineError:
        return None
    for instance in instances or ():
        if any(vip.split()[0].partition("/")[0] == spec.vip for vip in (*instance.vips, *instance.evips)):
            return VrrpStatus(instance.state.name, instance.base_priority, instance.effective_priority)
    return None


def _servers(node: LabNode) -> tuple[ServerStatus, ...] | None:
    """`show stat` of the node's haproxy."""
    try:
        answer = Socket(node.directory / "admin.sock").ask("show stat", _HAPROXY_TIMEOUT)
    except EngineError:
        return None
    return server_rows(answer)


def server_rows(answer: str) -> tuple[ServerStatus, ...]:
    """The servers in an answer to `show stat`, without empty slots."""
    return tuple(
        ServerStatus(row["# pxname"], _name(row), row["status"], row["check_status"])
        for row in csv.DictReader(answer.splitlines())
        if row["type"] == _SERVER and not (row["svname"].startswith(SLOT) and row["status"] == "MAINT")
    )


def _name(row: Mapping[str, str]) -> str:
    """A server's name; its address where it lives in a slot, whose name says nothing."""
    return row["addr"] if row["svname"].startswith(SLOT) else row["svname"]
