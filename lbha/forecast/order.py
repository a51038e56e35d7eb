"""In which order the nodes go from one lbha.toml to another. Pure.

The rules: whoever leaves stops before the others forget it, because a node that its peers do not know goes on
advertising all the same; whoever comes starts after all others list it; backups before the holder, and the
holder drained before its keepalived is touched, so that the VIP moves once, make before break.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbha.forecast.change import Change, Fate, NodeChange
from lbha.model import Cluster, Mode

FILE = "/etc/lbha/lbha.toml"


@dataclass(frozen=True, slots=True)
class Step:
    """On that node do this, because."""

    node: str
    do: str
    why: str


def order(old: Cluster, new: Cluster, change: Change) -> tuple[Step, ...]:
    """The steps, also for a refused change: then all stop but one, or all where none stays.

    The holder is taken for the first node of the old file; another that holds the VIP takes its place.
    """
    fates = {each.node: each for each in change.nodes}
    staying = [fates[node.name] for node in new.nodes if fates[node.name].fate is Fate.STAYS]
    leaving = [node.name for node in reversed(old.nodes) if fates[node.name].fate is not Fate.STAYS]
    coming = [node.name for node in new.nodes if fates[node.name].fate is not Fate.STAYS]
    first = old.nodes[0].name
    steps = [_stop_for_good(old, name, drain=name == first and bool(staying)) for name in leaving]
    if not staying:
        return (*steps, *(_start(new, name) for name in coming))
    holder = next((each for each in staying if each.node == first), staying[0])
    backups = [each for each in reversed(staying) if each is not holder]
    if change.refusals:
        steps += [
            Step(each.node, "systemctl stop keepalived", "nobody is left to disagree; the VIP has no spare now")
            for each in backups
        ]
        steps.append(
            Step(
                holder.node,
                _lay(new, holder, wait=False),
                "alone, it agrees with itself; the VIP is away for an election",
            )
        )
        steps += [
            Step(
                each.node,
                f"{_lay(new, each, wait=False)}; systemctl start keepalived",
                "it hears the holder, and is a backup",
            )
            for each in backups
        ]
    else:
        same = old == new
        steps += [
            Step(each.node, _upgrade(new) if same else _lay(new, each), "a backup first") for each in backups
        ]
        steps.append(_holder(old, new, holder, upgrade=same, alone=not backups))
    steps += [_start(new, name) for name in coming]
    return tuple(steps)


def _stop_for_good(old: Cluster, name: str, *, drain: bool) -> Step:
    agent = old.health.mode is Mode.AGENT
    stop = f"systemctl disable --now {'lbha-agent' if agent else 'lbha-reload.timer'} keepalived"
    first = "lbha drain; once the VIP has left: " if drain and agent else ""
    return Step(name, f"{first}{stop}", "before the others forget it: it would go on advertising")


def _start(new: Cluster, name: str) -> Step:
    unit = "lbha-agent" if new.health.mode is Mode.AGENT else "lbha-reload.timer"
    return Step(
        name,
        f"lay the new {FILE}; lbha apply; systemctl enable --now haproxy keepalived {unit}",
        "every other node lists it by now",
    )


def _lay(new: Cluster, change: NodeChange, *, wait: bool = True) -> str:
    """Lay the file, and see it in force. An agent applies it by itself: `wait` for that, or do not."""
    agent = new.health.mode is Mode.AGENT and "lbha-agent" not in change.restarts
    words = [f"lay the new {FILE}", "lbha status says applied" if agent and wait else "lbha apply"]
    if "lbha-agent" in change.restarts:
        on, off = "lbha-agent", "lbha-reload.timer"
        if new.health.mode is Mode.SCRIPT:
            on, off = off, on
        words.append(f"systemctl disable --now {off}; systemctl enable --now {on}")
    words += [f"systemctl restart {unit}" for unit in change.restarts if unit != "lbha-agent"]
    return "; ".join(words)


def _upgrade(new: Cluster) -> str:
    return "upgrade; systemctl restart lbha-agent" if new.health.mode is Mode.AGENT else "upgrade; lbha apply"


def _holder(old: Cluster, new: Cluster, change: NodeChange, *, upgrade: bool, alone: bool) -> Step:
    """The VIP leaves first where keepalived is touched and somebody can take it."""
    do = _upgrade(new) if upgrade else _lay(new, change)
    if alone:
        return Step(change.node, do, "the only one that stays")
    if not upgrade and "keepalived" not in (*change.reloads, *change.restarts):
        return Step(change.node, do, "the holder last; its keepalived is not touched")
    if old.health.mode is Mode.AGENT:
        undrain = "; lbha undrain" if new.health.mode is Mode.AGENT else ""
        return Step(change.node, f"lbha drain; once the VIP has left: {do}{undrain}", "the holder last")
    return Step(
        change.node,
        f"systemctl stop keepalived; {do}; systemctl start keepalived",
        "the holder last: stopped, it says goodbye, and a backup takes the VIP in its skew",
    )
