"""The other nodes, by what their agents say: the same configuration, the same time, heard at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

from lbha.agent.peer_tls import contexts
from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.errors import LbhaError
from lbha.facts import Peer, Report
from lbha.known import NOT_ASKED
from lbha.model import Mode

APART = 1.0
"""Seconds that two clocks may differ. Beyond that, logs and events cannot be laid side by side, and
certificates that were made on one node may not be valid yet on another."""


def agent(context: Context) -> Iterator[Finding]:
    """Whether one answers."""
    try:
        status = context.status
    except NotChecked as error:
        if os.geteuid() != 0:
            raise  # It may well be there, and answer root.
        yield Finding(
            "agent",
            Severity.ERROR,
            f"{error}: a dead haproxy is still noticed, by a script, but nothing follows lbha.toml or its "
            "backends",
            "systemctl enable --now lbha-agent; journalctl -u lbha-agent says why it ended",
        )
        return
    if status.refused:
        yield Finding(
            "agent",
            Severity.ERROR,
            f"the present lbha.toml is not in force, what ran before runs on: {status.refused}",
            "mend that: the agent tries again by itself, and takes a good edit of lbha.toml at once",
        )


def peer_channel(context: Context) -> Iterator[Finding]:
    """The certificates of [peers], and whether each other agent is heard."""
    others, peers = context.others, context.cluster.peers
    if context.cluster.health.mode is Mode.SCRIPT:
        raise DoesNotApply('[health] mode = "script": there are no agents')
    missing = [path for path in (peers.ca, peers.cert, peers.key) if not Path(path).exists()]
    if missing:
        yield Finding(
            "peer-channel",
            Severity.WARNING,
            f"{missing[0]} is missing, so the agents do not hear one another: no drain knows who can take "
            "over, and two holders can be settled by VRRP alone",
            "lbha pki init --out pki, then copy pki/NODE/* to each node (docs/peers.md)",
        )
        return
    try:
        contexts(peers, context.node.address)
    except LbhaError as error:
        if os.geteuid() != 0:
            raise NotChecked(f"{error}; run it as root") from None
        yield Finding(
            "peer-channel", Severity.ERROR, str(error), f"lbha pki init --renew {context.node.name} --out pki"
        )
        return
    yield from judge_heard(context.status.peers, len(others))


def judge_heard(peers: tuple[Peer, ...], count: int) -> Iterator[Finding]:
    """Each peer that has not answered lately."""
    deaf = [peer for peer in peers if peer.problem not in (None, NOT_ASKED)]
    if len(peers) < count or any(peer.problem == NOT_ASKED for peer in peers):
        raise NotChecked("the agent has only just started; try again in a second")
    for peer in deaf:
        yield Finding(
            "peer-channel",
            Severity.WARNING,
            f"the agent of {peer.node} is not heard: {peer.problem}",
            "docs/peers.md tells what each reason means; is the port of [peers] open between the nodes?",
        )


def same_configuration(context: Context) -> Iterator[Finding]:
    """By the hash in the agents' reports."""
    context.others  # noqa: B018 (DoesNotApply)
    yield from judge_same(context.reports, context.node.name, len(context.cluster.nodes))


def judge_same(reports: Mapping[str, Report], own: str, count: int) -> Iterator[Finding]:
    """`own` and the others, of `count` nodes."""
    mine = reports[own]
    for name, report in reports.items():
        if report.config != mine.config:
            yield Finding(
                "same-configuration",
                Severity.ERROR,
                f"{name} runs another lbha.toml ({report.config[:12]}) than {own} ({mine.config[:12]}): other "
                "peers, times or priorities there can make two holders",
                f"copy lbha.toml from one node to the others; compare: lbha config show | sha256sum on {name}",
            )
        if report.version != mine.version:
            yield Finding(
                "same-configuration",
                Severity.HINT,
                f"{name} runs lbha {report.version}, {own} runs {mine.version}",
                "finish the upgrade",
            )
    _all_heard(reports, count)


def clocks(context: Context) -> Iterator[Finding]:
    """By the agents' reports, each of which carries the time at its sender; else by HTTP's Date of the
    apiservers and members on the other nodes, which is exact to a second."""
    others = context.others
    try:
        status = context.status
    except (NotChecked, DoesNotApply):
        status = None
    ahead: dict[str, float] = {}
    for peer in status.peers if status else ():
        if peer.report is not None and peer.heard is not None and time.time() - peer.heard < 5:
            ahead[peer.node] = peer.report.at - peer.heard
    unknown = [node for node in others if node.name not in ahead]
    for node in unknown:
        dates = [
            (_seconds(each.date), each.asked_at)
            for each in context.served
            if each.date and each.endpoint.address in node.addresses
        ]
        if dates:
            date, at = dates[0]
            ahead[node.name] = offset(date, at)
    yield from judge_clocks(ahead)
    if silent := [node.name for node in others if node.name not in ahead]:
        raise NotChecked(f"{', '.join(silent)}: neither its agent nor a server there tells the time")


def judge_clocks(ahead: Mapping[str, float]) -> Iterator[Finding]:
    """Seconds that each other node's clock is ahead of this one's."""
    for name, seconds in ahead.items():
        if abs(seconds) > APART:
            yield Finding(
                "clocks",
                Severity.WARNING,
                f"the clock of {name} is {abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}: its "
                "events and logs cannot be laid beside these, and a new certificate may not be valid there yet",
                "apt-get install chrony, on all nodes; chronyc tracking",
            )


def offset(date: float, at: float) -> float:
    """The least that a clock is ahead which showed the whole second `date` at our `at`."""
    if at < date:
        return date - at
    return min(0.0, date + 1.0 - at)


def _seconds(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        raise NotChecked(f"a server's Date makes no sense: {date[:60]!r}") from None


def _all_heard(reports: Mapping[str, Report], count: int) -> None:
    if len(reports) < count:
        raise NotChecked(f"{count - len(reports)} of {count} nodes are not heard; see peer-channel")
