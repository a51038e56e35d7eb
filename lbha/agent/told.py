"""Which events follow from one status to the next. Pure; noise makes none.

What was not known before (`not asked yet`, no quorum asked for) becomes an event only when it is bad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lbha.agent.events import Event
from lbha.agent.words import utc
from lbha.facts import Server, Status
from lbha.known import NOT_ASKED, known, standing
from lbha.quorum import alarms

MANY = 5
"""Servers of one service that change at once: more of them are one event."""


def told(before: Status | None, now: Status) -> list[Event]:
    """What happened between two statuses, at the moment of the second."""
    at = now.report.at
    if before is None:
        holds = "it holds the VIP" if now.report.holds_vip else "it does not hold the VIP"
        return [Event(at, "agent-started", f"lbha {now.report.version} watches {now.report.node}: {holds}")]
    found: list[Event] = []

    def tell(kind: str, text: str, cause: str | None = None) -> None:
        found.append(Event(at, kind, text, cause))

    for look in (
        _split,
        _haproxy,
        _servers,
        _etcd,
        _peers,
        _drain,
        _fault,
        _priority,
        _vip,
        _config,
        _discovery,
    ):
        look(before, now, tell)
    return found


_Tell = Callable[..., None]


def _vip(before: Status, now: Status, tell: _Tell) -> None:
    own, was = now.report, before.report
    if own.holds_vip and not was.holds_vip:
        cause, why = _gained(before, now)
        tell("vip-gained", f"{own.node} holds {', '.join(now.vips)} now: {why}", cause)
    elif was.holds_vip and not own.holds_vip:
        cause, why = _lost(now)
        tell("vip-lost", f"{own.node} does not hold {', '.join(now.vips)} any more: {why}", cause)


def _gained(before: Status, now: Status) -> tuple[str, str]:
    """Why it came here, by what the peers say: the one that had it, as it was last heard."""
    own = now.report
    for peer in before.peers:
        if peer.report is None or not peer.report.holds_vip:
            continue
        node = peer.node
        fresh = known(now, own.at).get(node)
        if fresh is None:
            later = next((each.problem for each in now.peers if each.node == node), None)
            return (
                "silent",
                f"{node} held it and is not heard any more ({later or peer.problem or 'old report'})",
            )
        if not fresh.decision.up:
            return "fault", f"{node} held it and is in FAULT: {fresh.decision.why}"
        if fresh.drained:
            return "drain", f"{node} held it and is drained"
        if not standing(fresh):
            return "keepalived", f"{node} held it: {fresh.vrrp.problem or 'its keepalived is in FAULT'}"
        if fresh.decision.priority < own.decision.priority:
            return "priority", f"priority {own.decision.priority} beats {node}'s {fresh.decision.priority}"
        return "unknown", f"{node} held it and seems well; its next report may say more"
    if now.peers_off:
        return "unknown", "who had it is not known, because the agents do not hear each other"
    return "election", f"nobody that is heard had it, and priority {own.decision.priority} won"


def _lost(now: Status) -> tuple[str, str]:
    own = now.report
    if not own.decision.up:
        return "fault", f"FAULT: {own.decision.why}"
    if own.drained:
        return "drain", "it is drained"
    if not standing(own):
        return "keepalived", own.vrrp.problem or "keepalived is in FAULT; is the interface down?"
    better = [
        report
        for report in known(now, own.at).values()
        if report.node != own.node and standing(report) > own.decision.priority
    ]
    if better:
        best = max(better, key=standing)
        return "priority", f"{best.node}'s priority {standing(best)} beats {own.decision.priority}"
    return "unknown", f"another node took it from priority {own.decision.priority}"


def _split(before: Status, now: Status, tell: _Tell) -> None:
    was, own, node = before.split, now.split, now.report.node
    if own.rivals and not was.rivals and own.released is None:
        tell("split-brain", f"{' and '.join(own.rivals)} and {node} hold {', '.join(now.vips)}")
    if own.released is not None and was.released is None:
        tell("released", f"{node} gives {', '.join(now.vips)} up: {own.released}")
    elif own.released is None and was.released is not None:
        tell("candidate", f"{node} may hold {', '.join(now.vips)} again: {was.released.split(':')[0]} is over")
    known_before = {each.source for each in was.strangers}
    for each in own.strangers:
        if each.source not in known_before:
            addresses = ", ".join(each.addresses)
            tell("stranger", f"{each.source} advertises this virtual router id too, for {addresses}")


def _fault(before: Status, now: Status, tell: _Tell) -> None:
    was, own = before.report, now.report
    if was.decision.up != own.decision.up:
        if own.decision.up:
            tell("recovered", f"{own.node} can serve again: priority {own.decision.priority}")
        else:
            cause = "haproxy" if now.split.released is None else "split-brain"
            tell("fault", f"{own.node} goes to FAULT: {own.decision.why}", cause)
    elif own.decision.up and (was.vrrp.state == "FAULT") != (own.vrrp.state == "FAULT"):
        if own.vrrp.state == "FAULT":
            tell(
                "fault",
                "keepalived is in FAULT although haproxy can serve; is the interface down?",
                "keepalived",
            )
        elif own.vrrp.state is not None:
            tell("recovered", f"keepalived has left FAULT: {own.vrrp.state}")


def _priority(before: Status, now: Status, tell: _Tell) -> None:
    """Terms that were earned or lost, unless another event says so: a fault, a drain, the VIP itself."""
    was, own = before.report, now.report
    if not (was.decision.up and own.decision.up) or was.drained != own.drained:
        return
    earned = {term.name: term.earned for term in was.decision.terms}
    changes = [
        f"{'+' if term.earned else '-'}{term.worth} {term.name}: {term.why}"
        for term in own.decision.terms
        if term.worth and term.name != "holder" and term.earned != earned.get(term.name, term.earned)
    ]
    if changes:
        tell("priority", f"{was.decision.priority} -> {own.decision.priority}: {'; '.join(changes)}")


def _haproxy(before: Status, now: Status, tell: _Tell) -> None:
    was, is_ = before.haproxy.problem, now.haproxy.problem
    if is_ not in (None, NOT_ASKED) and was in (None, NOT_ASKED):
        tell("haproxy-down", f"haproxy cannot serve: {is_}")
    elif is_ is None and was not in (None, NOT_ASKED):
        tell("haproxy-up", "haproxy answers again")


def _servers(before: Status, now: Status, tell: _Tell) -> None:
    """Servers that both statuses know: one that comes or goes is told by the apply that did it."""
    was = {(server.service, server.name): server for server in before.haproxy.servers}
    changed = [
        server
        for server in now.haproxy.servers
        if (old := was.get((server.service, server.name))) is not None and old.live != server.live
    ]
    for kind, live in (("server-down", False), ("server-up", True)):
        for group in _by_service(server for server in changed if server.live is live):
            if len(group) > MANY:
                names = ", ".join(server.name for server in group[:MANY])
                more = len(group) - MANY
                tell(kind, f"{group[0].service}: {len(group)} servers: {names} and {more} more", "many")
                continue
            for server in group:
                reason = f" ({server.reason})" if server.reason and not live else ""
                tell(kind, f"{server.service}/{server.name} is {server.status}{reason}")


def _by_service(servers: Iterable[Server]) -> Iterator[list[Server]]:
    groups: dict[str, list[Server]] = {}
    for server in servers:
        groups.setdefault(server.service, []).append(server)
    yield from groups.values()


def _etcd(before: Status, now: Status, tell: _Tell) -> None:
    was = {etcd.service: etcd.quorum for etcd in before.etcd}
    for etcd in now.etcd:
        if etcd.quorum is False and was.get(etcd.service) is not False:
            tell(
                "quorum-lost",
                f"{etcd.service} has lost its quorum, since {utc(etcd.since)}: no member that answers knows "
                f"a leader; the pool stays open for serializable reads",
            )
        elif etcd.quorum and was.get(etcd.service) is False:
            tell("quorum-back", f"{etcd.service} has a quorum again")
    raised = {etcd.service: alarms(etcd) for etcd in before.etcd}
    for etcd in now.etcd:
        for alarm in sorted(alarms(etcd) - raised.get(etcd.service, frozenset())):
            tell("alarm", f"{etcd.service} has raised the alarm {alarm}", alarm)


def _peers(before: Status, now: Status, tell: _Tell) -> None:
    if now.peers_off or before.peers_off:
        return
    was = {peer.node: peer.problem for peer in before.peers}
    for peer in now.peers:
        old = was.get(peer.node, NOT_ASKED)
        if peer.problem not in (None, NOT_ASKED) and old in (None, NOT_ASKED):
            tell("peer-lost", f"{peer.node} is not heard: {peer.problem}")
        elif peer.problem is None and old not in (None, NOT_ASKED):
            tell("peer-back", f"{peer.node} is heard again")


def _drain(before: Status, now: Status, tell: _Tell) -> None:
    was, is_ = before.drain, now.drain
    if is_ is not None and is_ != was:
        reason = f": {is_.reason}" if is_.reason else ""
        span = "until undrained" if is_.until is None else f"for {round(is_.until - now.report.at)} s"
        tell("drain", f"{now.report.node} is drained {span}{reason}")
    elif was is not None and is_ is None:
        expired = was.until is not None and was.until <= now.report.at
        why = "the drain has expired" if expired else "undrained"
        tell("undrain", f"{now.report.node} is a candidate again: {why}", "expired" if expired else "operator")


def _config(before: Status, now: Status, tell: _Tell) -> None:
    if now.refused is not None and now.refused != before.refused:
        tell("refused", now.refused)
    if now.applied is not None and now.applied != before.applied and now.applied.result == "applied":
        tell("applied", now.applied.text)


def _discovery(before: Status, now: Status, tell: _Tell) -> None:
    was = {pool.service: pool.error for pool in before.pools}
    for pool in now.pools:
        if pool.error and not was.get(pool.service):
            kept = "the cluster's nodes stand in" if pool.age is None else f"{pool.backends} backends are kept"
            tell("stale", f"{pool.service}: {pool.error}; {kept}")
        elif not pool.error and was.get(pool.service):
            tell("fresh", f"{pool.service}: discovery answers again, {pool.backends} backends")
