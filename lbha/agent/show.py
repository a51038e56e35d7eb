"""`lbha status` for people: a Status as rich renderables. Pure; the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lbha.agent.problems import problems
from lbha.agent.words import ago, span
from lbha.facts import EtcdFacts, Peer, PoolFacts, Report, Server, Status, Term
from lbha.known import NOT_ASKED, holders, known
from lbha.masters import ABSENT, ACTIVE, UNKNOWN, masters, remarks

MANY = 20
"""A service with more servers than this shows only those that are not live."""

GOOD, WARN, BAD, DIM = "green", "yellow", "red", "dim"


def status(found: Status, now: float) -> RenderableType:
    """What is wrong, the nodes, the pools and their servers, etcd, and what the agent last did."""
    parts: list[RenderableType] = [_heading(found, now)]
    wrong = problems(found, now)
    parts += [Text.assemble(("! " if p.wrong else "- "), p.text, style=BAD if p.wrong else WARN) for p in wrong]
    if not wrong:
        parts.append(Text("healthy", GOOD))
    tables = [_nodes(found, now), _pools(found), _servers(found, now)]
    if found.etcd:
        tables.append(_etcd(found.etcd, now))
    if masters(found, now):
        tables.append(_masters(found, now))
    for table in tables:
        parts += [Text(), table]
    return Group(*parts, Text(), *_agent(found, now))


def _heading(found: Status, now: float) -> Text:
    having = holders(known(found, now))
    if having:
        holder = Text(" and ".join(having), "bold" if len(having) == 1 else f"bold {BAD}")
    elif all(peer.node in known(found, now) for peer in found.peers):
        holder = Text("NOBODY", f"bold {BAD}")
    else:
        holder = Text("a node that is not heard", "bold")
    return Text.assemble(
        "cluster ", (found.cluster, "bold"), ": VIP ", (", ".join(found.vips), "bold"), " is held by ", holder
    )


def _table(title: str, *headings: str, right: Iterable[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    numbers = set(right)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    return table


def _nodes(found: Status, now: float) -> Table:
    reports = known(found, now)
    terms_of_all = (term for report in reports.values() for term in report.decision.terms)
    names = list(dict.fromkeys(term.name for term in terms_of_all if term.worth))
    table = _table("nodes", "node", "VIP", "VRRP", "priority", *names, "state", right=("priority", *names))
    own = found.report.node
    for node in sorted({own, *(peer.node for peer in found.peers)}, key=_natural):
        name = Text(node, "bold" if node == own else "")
        report = reports.get(node)
        if report is None:
            peer = next(peer for peer in found.peers if peer.node == node)
            table.add_row(name, *["?"] * (3 + len(names)), _unheard(peer, found.peers_off, now))
            continue
        terms = {term.name: term for term in report.decision.terms}
        table.add_row(
            name,
            Text("here", GOOD) if report.holds_vip else Text("-"),
            _vrrp(report),
            _priority(report),
            *(_points(terms.get(each)) for each in names),
            _state(report, found, now),
        )
    return table


def _natural(name: str) -> list[tuple[int, str]]:
    """cp2 before cp10."""
    digits = "".join(each if each.isdigit() else " " for each in name).split()
    return [(0, name.rstrip("0123456789")), *((int(each), "") for each in digits[-1:])]


def _unheard(peer: Peer, off: str | None, now: float) -> Text:
    if off:
        return Text("the agents do not hear each other", WARN)
    if peer.problem == NOT_ASKED:
        return Text(NOT_ASKED, DIM)
    last = f", last {ago(peer.heard, now)}" if peer.heard is not None else ""
    return Text(f"not heard{last}: {peer.problem or 'its last report is old'}", BAD)


def _vrrp(report: Report) -> Text:
    if report.vrrp.problem is not None:
        return Text("?", BAD)
    state = report.vrrp.state or "?"
    return Text(state, BAD if state in ("FAULT", "INIT", "?") else "")


def _priority(report: Report) -> Text:
    """The decided one, and keepalived's own where it says another."""
    decided, effective = report.decision.priority, report.vrrp.effective_priority
    if not report.decision.up:
        return Text("-", BAD)
    if effective in (None, decided) or report.vrrp.state == "FAULT":
        return Text(str(decided))
    return Text(f"{decided}, not {effective}", BAD)


def _points(term: Term | None) -> Text:
    if term is None or not term.worth:
        return Text("-", DIM)
    return Text(f"{term.worth}") if term.earned else Text("0", WARN if term.name == "serving" else "")


def _state(report: Report, found: Status, now: float) -> Text:
    if not report.decision.up:
        return Text(f"FAULT: {report.decision.why}", BAD)
    own = report.node == found.report.node
    if own and found.drain:
        end = f" for {span(found.drain.until - now)}" if found.drain.until is not None else ""
        reason = f": {found.drain.reason}" if found.drain.reason else ""
        return Text(f"drained{end}{reason}", WARN)
    if report.drained:
        return Text("drained", WARN)
    if own and found.quarantined > 0:
        return Text(f"just booted, waits {span(found.quarantined)}", WARN)
    return Text(report.decision.why, GOOD)


def _pools(found: Status) -> Table:
    table = _table("pools", "service", "live", "of", "discovery", right=("live", "of"))
    for pool in found.pools:
        live = found.haproxy.live.get(pool.service)
        count = Text("?" if live is None else str(live), BAD if not live else "")
        table.add_row(Text(pool.service), count, str(pool.backends), _discovery(pool))
    return table


def _discovery(pool: PoolFacts) -> Text:
    if pool.error is None:
        return Text("fresh", GOOD)
    kept = "the nodes stand in" if pool.age is None else f"kept from {span(pool.age)} ago"
    return Text(f"{kept}: {pool.error}", BAD)


def _servers(found: Status, now: float) -> Table:
    title = "servers, as haproxy sees them"
    if found.haproxy.problem is not None:
        title += ": it does not answer, this is old"
    table = _table(title, "server", "address", "status", "since", "sessions", "reason", right=("sessions",))
    services: dict[str, list[Server]] = {}
    for server in found.haproxy.servers:
        services.setdefault(server.service, []).append(server)
    for service, servers in services.items():
        shown = servers if len(servers) <= MANY else [server for server in servers if not server.live]
        for server in shown:
            style = GOOD if server.live else WARN if server.status[:5] in ("MAINT", "DRAIN") else BAD
            table.add_row(
                Text(f"{service}/{server.name}"),
                Text(str(server.endpoint)),  # A plain string is markup to rich: it would eat [fd00::1].
                Text(server.status, style),
                span(now - server.since),
                str(server.sessions),
                Text(server.reason, DIM),
            )
        if len(shown) < len(servers):
            table.add_row(
                Text(f"{service}/…"), f"{len(servers) - len(shown)} more", Text("live", GOOD), "", "", ""
            )
    return table


def _etcd(services: tuple[EtcdFacts, ...], now: float) -> Table:
    table = _table("etcd", "service", "quorum", "members")
    for etcd in services:
        word, style = {True: ("yes", GOOD), False: ("LOST", BAD), None: ("?", WARN)}[etcd.quorum]
        well = sum(member.leader for member in etcd.members)
        told = [f"{well} of {len(etcd.members)} know a leader"]
        for member in etcd.members:
            if member.problem:
                told.append(f"{member.endpoint}: {member.problem}")
            elif member.learner:
                told.append(f"{member.endpoint} is a learner")
            elif not member.leader:
                told.append(f"{member.endpoint} knows none")
        table.add_row(
            Text(etcd.service), Text(f"{word} ({span(now - etcd.since)})", style), Text("; ".join(told))
        )
    return table


def _masters(found: Status, now: float) -> Table:
    table = _table("masters", "node", "apiserver", "controller-manager", "scheduler")
    styles = {ACTIVE: GOOD, ABSENT: WARN, UNKNOWN: DIM}
    for each in masters(found, now):
        words = (Text(word, styles.get(word, "")) for word in each.components)
        table.add_row(Text(each.node), Text(each.apiserver), *words)
    return table


def _clients(found: Status) -> Text:
    """Whether idle clients are told when the VIP moves."""
    if found.peers_off:
        return Text("idle clients of a holder that dies are not told: the agents do not hear each other", WARN)
    clients = found.clients
    if clients.connections is None:
        return Text("connections through the VIP: not known yet", DIM)
    of = f" of {clients.holder}, told if the VIP comes here" if clients.holder else ", told to the others"
    more = f"; {clients.dropped} more are not told" if clients.dropped else ""
    return Text(f"connections through the VIP: {clients.connections}{of}{more}", WARN if more else DIM)


def _agent(found: Status, now: float) -> list[Text]:
    lines = []
    if found.applied is not None:
        style = BAD if found.applied.result == "refused" else ""
        lines.append(
            Text(
                f"last apply {ago(found.applied.at, now)}, {found.applied.result}: {found.applied.text}", style
            )
        )
    if found.old_workers:
        each = ", ".join(f"{w.pid} ({span(w.age)}, {w.sessions} sessions)" for w in found.old_workers)
        lines.append(Text(f"old haproxy workers: {each}", WARN))
    lines += [Text(each, DIM) for each in remarks(found, now)]
    lines.append(_clients(found))
    lines.append(
        Text(
            f"agent {found.report.version}, up {span(now - found.started)}, lag {found.lag_ms:.0f} ms at worst",
            DIM,
        )
    )
    return lines
