"""The control plane behind the VIP: may haproxy ask it, and does haproxy notice in time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lbha.doctor.context import Context
from lbha.doctor.fold import folded
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.doctor.served import MOST, Served
from lbha.forecast.waits import removal
from lbha.model import CheckTimes, Cluster, Kind
from lbha.wiring.found import Command, Unreadable, commands_of_manifest
from lbha.wiring.gather import running

MANIFEST = Path("/etc/kubernetes/manifests/kube-apiserver.yaml")

SLOW = 3.0
"""Seconds. Until haproxy notices, it sends clients to a dead server; VRRP has moved the VIP long since."""

_REFUSED = (
    *("certificate required", "bad certificate", "handshake failure"),
    *("eof occurred", "reset by peer", "broken pipe"),
)
"""How TLS 1.3 and 1.2 tell it, and what is left of it when the server's end comes first."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def readyz(context: Context) -> Iterator[Finding]:
    """Each apiserver's answer to haproxy's question."""
    yield from _let_in(context, Kind.KUBE_APISERVER)


def etcd_health(context: Context) -> Iterator[Finding]:
    """Each member's answer to haproxy's question."""
    yield from _let_in(context, Kind.ETCD)


def _let_in(context: Context, kind: Kind) -> Iterator[Finding]:
    if not any(service.kind is kind for service in context.cluster.services):
        raise DoesNotApply(f"no service of kind {kind}")
    asked = [each for each in context.served if each.kind is kind]
    if not asked:
        raise NotChecked(f"the first {MOST} backends are looked at, and none of them is of kind {kind}")
    yield from judge_answers(asked)
    if all(each.status is None for each in asked):
        raise NotChecked(f"none answers; {asked[0].endpoint}: {asked[0].problem}")


def judge_answers(asked: Iterable[Served]) -> Iterator[Finding]:
    """Only refusals of who asks: that a server is sick is `lbha status`' matter."""
    return folded((str(each.endpoint), finding) for each in asked for finding in _refusal(each))


def _refusal(each: Served) -> Iterator[Finding]:
    name = "readyz" if each.kind is Kind.KUBE_APISERVER else "etcd-health"
    tls = f"[services.{each.service}] tls = {{ ca, cert, key }}"
    if each.status in (401, 403):
        yield Finding(
            name,
            Severity.ERROR,
            f"answers {each.status} to haproxy's check: it lets no anonymous client ask, and haproxy takes it "
            "for down",
            f"a client certificate that may: {tls}; or --anonymous-auth=true with the ClusterRole "
            "system:public-info-viewer, Kubernetes' defaults",
        )
    elif each.kind is Kind.ETCD and _wants_tls(each):
        yield Finding(
            name,
            Severity.ERROR,
            f"speaks no plain HTTP ({each.problem or each.said}): haproxy takes it for down",
            tls,
        )
    elif each.problem and each.anonymous and any(word in each.problem for word in _REFUSED):
        yield Finding(
            name,
            Severity.ERROR,
            "ends a TLS connection without a client certificate, and haproxy has none to show: it takes it "
            "for down",
            f"{tls}, signed by the authority that the server trusts (--trusted-ca-file, --client-ca-file)",
        )


def _wants_tls(each: Served) -> bool:
    """Asked in plain HTTP, it closes; Go's server says why first."""
    told = f"{each.problem} {each.said}"
    return not each.tls and any(word in told for word in ("no HTTP", "reset by peer", "HTTPS server"))


def shutdown_delay(context: Context) -> Iterator[Finding]:
    """How this node's apiserver was started, against haproxy's times."""
    services = [each for each in context.cluster.services if each.kind is Kind.KUBE_APISERVER]
    if not services:
        raise DoesNotApply("no service of kind kube-apiserver")
    started = [each for each, _ in running() if each.program == "kube-apiserver"] or _of_manifest()
    if not started:
        raise DoesNotApply(f"no kube-apiserver runs on this node, and there is no {MANIFEST}")
    where, value = started[0].source, started[0].flags.get("shutdown-delay-duration")
    for service in services:
        yield from judge_delay(where, value, service.check)


def _of_manifest() -> list[Command]:
    try:
        text = MANIFEST.read_text(encoding="utf-8", errors="replace")
        return commands_of_manifest(text, str(MANIFEST))
    except FileNotFoundError:
        return []
    except Unreadable as error:
        raise NotChecked(f"{MANIFEST}: {error}") from None


def judge_delay(where: str, value: str | None, check: CheckTimes) -> Iterator[Finding]:
    """`value` of --shutdown-delay-duration, None where it is not given (then it is 0)."""
    delay = seconds(value) if value else 0.0
    needed, _ = removal(check, silent=False)
    if delay == 0:
        yield Finding(
            "shutdown-delay",
            Severity.HINT,
            f"kube-apiserver ({where}) has no --shutdown-delay-duration: at a restart it stops to listen at "
            f"once, before haproxy can notice ({needed:.1f} s); new connections go to others, requests under "
            "way are cut",
            f"--shutdown-delay-duration={max(5, round(3 * needed))}s",
        )
    elif delay < needed:
        yield Finding(
            "shutdown-delay",
            Severity.WARNING,
            f"kube-apiserver ({where}) has --shutdown-delay-duration={value}, and haproxy notices a failing "
            f"/readyz after up to {needed:.1f} s: until then clients are sent to one that no longer listens",
            f"--shutdown-delay-duration={max(5, round(3 * needed))}s, or a shorter check.interval, check.fall",
        )


def detection(context: Context) -> Iterator[Finding]:
    """By the configuration alone."""
    yield from judge_detection(context.cluster)


def judge_detection(cluster: Cluster) -> Iterator[Finding]:
    """haproxy's times of each service against VRRP's."""
    failover = cluster.failover
    moved = (failover.down_timer_adverts + 1) * failover.advert_interval
    for service in cluster.services:
        needed, _ = removal(service.check, silent=False)
        if needed > max(SLOW, moved):
            yield Finding(
                "detection",
                Severity.WARNING,
                f"haproxy notices a dead {service.name} after up to {needed:.1f} s, VRRP moves the VIP after "
                f"{moved:.1f} s at most: for {needed - moved:.1f} s the new holder sends clients to the dead "
                "node",
                f"[services.{service.name}] check.interval, check.fast_interval, check.fall: leave them out "
                "for the defaults",
            )


def seconds(text: str) -> float:
    """A duration as Go writes it: `70s`, `1m10s`, `0`. NotChecked for anything else."""
    parts = _DURATION.findall(text)
    if text != "0" and "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise NotChecked(f"--shutdown-delay-duration={text} makes no sense")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
