"""The engines' own traps: versions, how they were built, what they may do here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lbha import engine
from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.haproxy import Haproxy
from lbha.keepalived import Keepalived
from lbha.reaper import old_workers

HAPROXY_LEAST = (2, 6)
KEEPALIVED_LEAST = (2, 2, 7)
"""The oldest that lbha was measured with (Debian 12's)."""

HARD_STOP = 600.0
"""Seconds that a haproxy worker may outlive a reload (`hard-stop-after` in haproxy.cfg)."""

MANY_WORKERS = 5
"""Old workers: as many reloads as `mworker-max-reloads` lets one live through."""

_NUMBERS = re.compile(r"\d+")
_RTTIME = re.compile(r"^\s*vrrp_rlimit_rttime\s+(\d+)", re.MULTILINE)
_REAL_TIME = re.compile(r"^\s*vrrp_rt_priority\s", re.MULTILINE)


def haproxy_version(context: Context) -> Iterator[Finding]:
    """Raises EngineError where haproxy does not say."""
    yield from _installed("haproxy", Haproxy(context.cluster.paths).version, judge_haproxy)


def keepalived_version(context: Context) -> Iterator[Finding]:
    """Raises EngineError where keepalived does not say."""
    yield from _installed("keepalived", Keepalived(context.cluster.paths).version, judge_keepalived)


def judge_haproxy(version: str) -> Iterator[Finding]:
    """By its version alone."""
    if _number(version) < HAPROXY_LEAST:
        yield Finding(
            "haproxy-version",
            Severity.ERROR,
            f"haproxy {version}: lbha needs 2.6, whose master socket and server slots it uses",
            "upgrade: apt-get install haproxy (Debian 12 has 2.6)",
        )


def judge_keepalived(version: str) -> Iterator[Finding]:
    """By its version alone."""
    number = _number(version)
    if number < KEEPALIVED_LEAST:
        yield Finding(
            "keepalived-version",
            Severity.ERROR,
            f"keepalived {version}: lbha was measured with 2.2.7 and newer only",
            "upgrade: apt-get install keepalived (Debian 12 has 2.2.7)",
        )
    elif number[:3] == (2, 2, 8):
        yield Finding(
            "keepalived-version",
            Severity.WARNING,
            "keepalived 2.2.8: reloads in quick succession at boot left two holders for good (its issue 2387)",
            "upgrade to 2.3, or stay with Debian 12's 2.2.7",
        )


def haproxy_features(context: Context) -> Iterator[Finding]:
    """What `haproxy -vv` tells, and whether the kernel would make up for it."""
    code, output = engine.run("haproxy", ["-vv"], 5.0)
    if code != 0:
        raise NotChecked(f"haproxy -vv ends with {code}: {engine.first_problem(output.splitlines())}")
    six = any(":" in vip for vip in context.cluster.vips)
    yield from judge_features(output, nonlocal_bind=_nonlocal_bind(six=six))


def judge_features(output: str, *, nonlocal_bind: bool) -> Iterator[Finding]:
    """`output` of `haproxy -vv`; `nonlocal_bind`: net.ipv[46].ip_nonlocal_bind is set."""
    features = set(_after(output, "Feature list").split())
    if not features:
        raise NotChecked("haproxy -vv lists no features")
    if "IP_TRANSPARENT" not in _after(output, "Built with transparent proxy support") and not nonlocal_bind:
        yield Finding(
            "haproxy-features",
            Severity.FATAL,
            "haproxy is built without transparent proxy support: it cannot listen on a VIP that is on another "
            "node",
            "install a distribution's haproxy, or: sysctl -w net.ipv4.ip_nonlocal_bind=1",
        )
    for feature, loss in (
        ("OPENSSL", "it cannot check an apiserver or an etcd over TLS"),
        ("PROMEX", "it refuses the line of haproxy.cfg that serves /metrics"),
    ):
        if f"+{feature}" not in features:
            yield Finding(
                "haproxy-features",
                Severity.FATAL,
                f"haproxy is built without {feature}: {loss}",
                "install a distribution's haproxy",
            )


def _after(output: str, beginning: str) -> str:
    """What follows the colon in the line that begins so."""
    line = next((each for each in output.splitlines() if each.startswith(beginning)), "")
    return line.partition(":")[2]


def real_time(context: Context) -> Iterator[Finding]:
    """keepalived.conf as it lies, and the capabilities of the keepalived that runs (or will)."""
    keepalived = Keepalived(context.cluster.paths)
    yield from judge_real_time(context.keepalived_conf, may_raise=keepalived.survives_real_time())


def judge_real_time(conf: str, *, may_raise: bool) -> Iterator[Finding]:
    """`may_raise`: keepalived has CAP_SYS_RESOURCE."""
    if not _REAL_TIME.search(conf):
        raise DoesNotApply("keepalived.conf asks for no real-time priority")
    if not may_raise:
        yield Finding(
            "real-time",
            Severity.ERROR,
            "keepalived.conf has vrrp_rt_priority, and keepalived has no CAP_SYS_RESOURCE: at its next reload "
            "the kernel kills the VRRP process, and the VIP leaves for seconds",
            "lbha apply (it leaves vrrp_rt_priority out then), or give the unit CAP_SYS_RESOURCE",
        )
    limit = _RTTIME.search(conf)
    if limit is None or int(limit.group(1)) < 100_000:
        yield Finding(
            "real-time",
            Severity.ERROR,
            f"keepalived.conf has vrrp_rt_priority and {limit.group(0).strip() if limit else 'no limit'}: "
            "10 ms of CPU without a pause, the default, are then enough for the kernel to kill keepalived",
            "vrrp_rlimit_rttime 1000000 in the template of keepalived.conf",
        )


def old_haproxy_workers(context: Context) -> Iterator[Finding]:
    """Raises EngineError where haproxy's master does not answer."""
    yield from judge_workers(
        [(each.pid, each.age, each.sessions) for each in old_workers(context.cluster.paths)]
    )


def judge_workers(workers: list[tuple[int, float, int]]) -> Iterator[Finding]:
    """Old workers: pid, age in seconds, sessions."""
    told = ", ".join(f"{pid} ({age:.0f} s, {sessions} sessions)" for pid, age, sessions in workers[:5])
    if any(age > HARD_STOP for _, age, _ in workers) or len(workers) > MANY_WORKERS:
        yield Finding(
            "old-workers",
            Severity.WARNING,
            f"haproxy workers of earlier configurations live on, and check no server any more: {told}",
            "hard-stop-after in haproxy.cfg bounds them; end one now: kill -TERM PID",
        )
    elif workers:
        yield Finding(
            "old-workers",
            Severity.HINT,
            f"haproxy workers of earlier configurations carry sessions, and check no server any more: {told}",
            "nothing: they end with their sessions, or after 10 min",
        )


def _installed(
    name: str, version: Callable[[], str], judge: Callable[[str], Iterator[Finding]]
) -> Iterator[Finding]:
    if engine.installed(name) is None:
        yield Finding(f"{name}-version", Severity.FATAL, f"{name} is not installed", f"apt-get install {name}")
    else:
        yield from judge(version())


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _NUMBERS.findall(version.partition("-")[0])[:3])


def _nonlocal_bind(*, six: bool) -> bool:
    families = ("ipv4", "ipv6") if six else ("ipv4",)
    try:
        return all(
            Path(f"/proc/sys/net/{family}/ip_nonlocal_bind").read_text().strip() == "1" for family in families
        )
    except OSError:
        return False
