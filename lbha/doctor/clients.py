"""This node's clients of the apiserver and of etcd: do they go through the VIP. `lbha wiring` judges them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.wiring import verdict
from lbha.wiring.gather import Node, resolve
from lbha.wiring.verdict import Here, Way

ROOT = Path("/")


def clients(context: Context) -> Iterator[Finding]:
    """Kubeconfigs, manifests and programs, as `lbha wiring --check` finds them."""
    own = frozenset(each.address for each in context.links.addresses) - set(context.cluster.vips)
    found = Node(ROOT, processes=True).look()
    yield from judge_clients(verdict.judge(context.cluster, found, Here(own, resolve)))


def judge_clients(found: Sequence[verdict.Finding]) -> Iterator[Finding]:
    """What `lbha wiring` says of each; certificates are looked at where they are shown."""
    told = [each for each in found if each.way is not Way.ABSENT and "certificate" not in each.client]
    unreadable = [each for each in told if each.client == "unreadable"]
    if not told:
        raise DoesNotApply("no client of the apiserver or of etcd is set up on this node")
    for each in told:
        if each.wrong and each not in unreadable:
            yield Finding(
                "clients",
                Severity.WARNING if each.way is Way.PAST else Severity.ERROR,
                f"{each.client} ({', '.join(each.sources)}): {each.text}",
                "lbha wiring shows what to write instead; lbha wiring --check",
            )
    if unreadable:
        raise NotChecked("; ".join(each.text for each in unreadable))
