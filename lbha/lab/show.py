"""`lbha lab status` for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lbha.lab.control import UnitState
from lbha.lab.spec import STAND_IN
from lbha.lab.status import LabStatus, NodeStatus, VrrpStatus, problems


def status(found: LabStatus) -> None:
    """Print a lab's status as a table a node, with what is wrong below it."""
    console = Console(soft_wrap=True)
    holder = " and ".join(found.holders) or "NOBODY"
    console.print(
        f"lab [bold]{found.name}[/] ({found.setup}): VIP [bold]{found.vip}[/] is held by [bold]{holder}[/]"
    )
    if found.apiserver == STAND_IN:
        console.print("apiserver: a stand-in, not a real kube-apiserver", style="dim")
    else:
        console.print(f"apiserver: {found.apiserver}", style="dim")
    nodes = Table(title="nodes", title_justify="left", title_style="bold")
    for heading in ("node", "address", "VIP", "VRRP", "priority", "etcd", "processes"):
        nodes.add_column(heading)
    for node in found.nodes:
        nodes.add_row(*_node(node, found))
    console.print(nodes)
    console.print(_servers(found))
    for fault in found.faults:
        console.print(f"fault: {fault.kind} on {fault.node}", style="yellow")
    wrong = problems(found)
    for problem in wrong:
        console.print(f"note: {problem}", style="yellow")
    if not wrong:
        console.print("healthy and at rest", style="green")


def _node(node: NodeStatus, found: LabStatus) -> tuple[Text, ...]:
    member = node.member
    if "etcd" not in node.roles:
        etcd = Text("-")
    elif member is None:
        etcd = Text("no answer", "red")
    elif member.leader is None:
        etcd = Text("no leader", "red")
    else:
        etcd = Text("leader" if member.leader == node.name else "follower")
    vrrp = Text("-")
    if "lb" in node.roles:
        vrrp = Text(node.vrrp.state) if node.vrrp else Text("no answer", "red")
    return (
        Text(node.name),
        Text(node.address),
        Text("here", "green") if node.holds_vip else Text("-"),
        vrrp,
        Text(_priority(node.vrrp)),
        etcd,
        _units(node, found),
    )


def _priority(vrrp: VrrpStatus | None) -> str:
    """The effective priority, and how the scripts' verdicts changed the base: `254 (128+126)`."""
    if vrrp is None:
        return "-"
    if not vrrp.change:
        return str(vrrp.base_priority)
    return f"{vrrp.effective_priority} ({vrrp.base_priority}{vrrp.change:+})"


def _units(node: NodeStatus, found: LabStatus) -> Text:
    if found.supervisor:
        return Text("unknown", "red")
    odd = [f"{u.name} {u.state}" for u in node.units if u.state is not UnitState.RUNNING]
    return Text(", ".join(odd), "red") if odd else Text("all run", "green")


def _servers(found: LabStatus) -> Table:
    """One row a server, one column for each haproxy that judges it."""
    table = Table(title="servers, as each haproxy sees them", title_justify="left", title_style="bold")
    table.add_column("server")
    judges = [node for node in found.nodes if "lb" in node.roles]
    for node in judges:
        table.add_column(f"on {node.name}")
    names = dict.fromkeys((server.backend, server.server) for node in judges for server in node.servers or ())
    for name in names:
        row = [Text("/".join(name))]
        for node in judges:
            if node.servers is None:
                row.append(Text("no answer", "red"))
                continue
            seen = {(s.backend, s.server): s for s in node.servers}.get(name)
            text = f"{seen.status} {seen.check}".strip() if seen else "-"
            row.append(Text(text, "green" if text.startswith("UP") else "red"))
        table.add_row(*row)
    return table
