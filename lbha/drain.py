"""An operator's wish that the VIP be elsewhere: when it is refused, and how it outlives a restart.

A drained node's score is 0: it keeps the VIP until another has it (make-before-break), and gets it only when
nobody else can serve.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lbha import files
from lbha.facts import Drain, Report, Status
from lbha.known import earned, known, standing

FILE = "drain.json"


def refusal(status: Status, now: float) -> str | None:
    """Why draining this node is refused; None when another node is known to be able to take over."""
    own = status.report.node
    if not status.peers:
        return f"{own} is the only node: nobody could take over; --force does it anyway"
    if status.peers_off:
        return (
            f"nobody is known to be able to take over, because the agents do not hear each other "
            f"({status.peers_off}); --force does it anyway"
        )
    heard = known(status, now)
    reasons = []
    for peer in status.peers:
        report = heard.get(peer.node)
        why = f"not heard ({peer.problem or 'its last report is old'})" if report is None else _unable(report)
        if why is None:
            return None
        reasons.append(f"{peer.node} {why}")
    return f"nobody could take over: {'; '.join(reasons)}; --force does it anyway"


def _unable(report: Report) -> str | None:
    if not report.decision.up:
        return f"is in FAULT ({report.decision.why})"
    if report.drained:
        return "is drained"
    if not standing(report):
        return f"cannot ({report.vrrp.problem or 'its keepalived is in FAULT'})"
    if not earned(report, "serving"):
        terms = report.decision.terms
        return f"does not serve ({next((t.why for t in terms if t.name == 'serving'), report.decision.why)})"
    return None


def load(state_dir: Path, now: float) -> tuple[Drain | None, str | None]:
    """The drain that is in force, and what is wrong with the file. A damaged file is no drain."""
    path = state_dir / FILE
    try:
        data = files.read(path)
        drain = None if data is None else msgspec.json.decode(data, type=Drain)
    except (OSError, msgspec.MsgspecError) as error:
        return (
            None,
            f"{path} cannot be read ({error}): this node counts as not drained; lbha drain writes it anew",
        )
    return in_force(drain, now), None


def save(state_dir: Path, drain: Drain | None) -> None:
    """Keep it, or forget it (None). Raises OSError."""
    path = state_dir / FILE
    if drain is None:
        path.unlink(missing_ok=True)
        if state_dir.is_dir():
            files.sync(state_dir)
        return
    files.private_directory(state_dir)
    files.write(path, msgspec.json.encode(drain) + b"\n", files.PRIVATE)


def in_force(drain: Drain | None, now: float) -> Drain | None:
    """None once it has expired."""
    return None if drain and drain.until is not None and drain.until <= now else drain
