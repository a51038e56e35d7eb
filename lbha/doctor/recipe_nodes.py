"""Traps that show only when every node's keepalived.conf is laid beside the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.doctor.recipe_files import Nodes
from lbha.keepalived_conf import Instance

_DEAF = "they do not hear each other, and each holds the VIP"

_SAME: tuple[tuple[str, Callable[[Instance], object], str], ...] = (
    ("vrrp_version", lambda each: each.version, _DEAF),
    ("how adverts are sent", lambda each: "unicast_peer" if each.peers else "multicast", _DEAF),
    ("virtual_router_id", lambda each: each.router, "each is a router of its own, and each holds the VIP"),
    (
        "virtual_ipaddress",
        lambda each: sorted(vip.partition("/")[0] for vip in each.vips),
        "they discard each other's adverts, or leave a VIP behind",
    ),
    (
        "advert_int or down_timer_adverts",
        lambda each: (each.advert, each.adverts),
        "one takes over while the other still sends",
    ),
)


def one_cluster(nodes: Nodes) -> Iterator[Finding]:
    """What VRRP needs to be the same everywhere."""
    for name, value, harm in _SAME:
        values: dict[str, list[str]] = defaultdict(list)
        for conf, instance in nodes:
            values[str(value(instance))].append(conf.path)
        if len(values) > 1:
            told = "; ".join(f"{found} in {', '.join(paths)}" for found, paths in values.items())
            yield Finding(
                "one-cluster", Severity.ERROR, f"{name} differs ({told}): {harm}", f"the same {name} everywhere"
            )


def same_priority(nodes: Nodes) -> Iterator[Finding]:
    """Two with one priority wait the same skew."""
    by_priority: dict[int, list[str]] = defaultdict(list)
    for conf, instance in nodes:
        by_priority[instance.priority].append(conf.path)
    for priority, paths in by_priority.items():
        if len(paths) > 1:
            yield Finding(
                "same-priority",
                Severity.WARNING,
                f"priority {priority} in {' and '.join(paths)}: when the holder dies they take over at the "
                "same moment, and both hold the VIP until they hear each other",
                "priorities some 20 apart: the gap between two takeovers is gap / 256 × advert_int",
            )


def state_master(nodes: Nodes) -> Iterator[Finding]:
    """`state MASTER` is a start value, and with preemption the preferred node comes back."""
    masters = [conf.path for conf, instance in nodes if instance.state == "MASTER"]
    if len(masters) > 1:
        yield Finding(
            "state-master",
            Severity.WARNING,
            f"state MASTER in {' and '.join(masters)}: each that starts takes the VIP before it has listened",
            "state BACKUP everywhere; the priority decides",
        )
    highest = max(instance.priority for _, instance in nodes)
    first = [conf.path for conf, instance in nodes if instance.priority == highest]
    decided_elsewhere = any(instance.nopreempt or instance.track_files for _, instance in nodes)
    if len(first) == 1 and not decided_elsewhere:
        yield Finding(
            "state-master",
            Severity.HINT,
            f"{first[0]} has the highest priority and takes the VIP back as soon as it runs again: every "
            "repair moves the VIP a second time and cuts every connection again",
            "raise the priority of whoever holds it (a track_script or track_file with a weight)",
        )


def script_weight(nodes: Nodes) -> Iterator[Finding]:
    """Whether the failure of all its scripts takes the first node below the next one."""
    if not any(script.weight for _, instance in nodes for script in instance.scripts):
        raise DoesNotApply("no script has a weight: a failure is FAULT")
    for conf, instance in nodes:
        rest = [other.highest for _, other in nodes if other is not instance]
        # Whoever is best when healthy must fall below somebody when its scripts fail.
        if instance.highest >= max(rest) and instance.lowest >= max(rest) and instance.scripts:
            if instance.track_files or any(script.weight == 0 for script in instance.scripts):
                continue
            yield Finding(
                "script-weight",
                Severity.ERROR,
                f"{conf.path}: {instance.name} has {instance.highest}, {instance.lowest} when its scripts "
                f"fail, and the best of the others {max(rest)}: a dead haproxy never moves the VIP",
                f"a weight beyond -{instance.highest - max(rest)}, or none (FAULT)",
            )


def peers_listed(nodes: Nodes) -> Iterator[Finding]:
    """A node that another does not list is not heard by it, or not told."""
    listing = [(conf, instance) for conf, instance in nodes if instance.peers]
    if not listing:
        raise DoesNotApply("adverts are multicast: nobody is listed")
    sources = {instance.source: conf.path for conf, instance in listing if instance.source}
    for conf, instance in listing:
        for source, path in sources.items():
            if source != instance.source and source not in instance.peers:
                yield Finding(
                    "peers-listed",
                    Severity.ERROR,
                    f"{conf.path} does not list {source} ({path}) in unicast_peer: that node does not hear "
                    "this one, and both hold the VIP",
                    f"add {source}; a new node is listed on the old ones before it starts",
                )
    if silent := [conf.path for conf, instance in listing if not instance.source]:
        raise NotChecked(f"{', '.join(silent)}: without unicast_src_ip nobody knows which address is its own")
