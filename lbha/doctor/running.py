"""Which configurations run here: the laid ones, and nobody else's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lbha import engine, files, nftables
from lbha.doctor.context import Context
from lbha.doctor.model import Finding, NotChecked, Severity
from lbha.doctor.processes import Process, processes
from lbha.engine import Engine
from lbha.errors import EngineError
from lbha.haproxy import Haproxy
from lbha.keepalived import Keepalived
from lbha.model import Rendered
from lbha.nftables import Nftables

_QUESTIONS = ("-v", "--version", "-t", "--config-test", "-h", "--help")

_DEFAULT_CONF = "/etc/keepalived/keepalived.conf"
_ROUTER = re.compile(r"^\s*virtual_router_id\s+(\d+)", re.MULTILINE)


def running_configuration(context: Context) -> Iterator[Finding]:
    """Both daemons, and the kernel's rules, by the digest of what they run."""
    if os.geteuid() != 0:
        raise NotChecked("only root may ask the daemons; run it as root")
    paths = context.cluster.paths
    yield from _runs(Haproxy(paths), context.haproxy_cfg, paths.haproxy_cfg)
    yield from _runs(Keepalived(paths), context.keepalived_conf, paths.keepalived_conf)
    rules = Rendered.targets(paths)[nftables.FILE]
    laid = (files.read(rules) or b"").decode("utf-8", "replace")
    loaded = Nftables(paths).running().digest
    if loaded != engine.digest_in(laid):
        yield Finding(
            "running-configuration",
            Severity.ERROR,
            f"{rules} is not loaded (the kernel has {loaded or 'none of it'}): redirected services and the "
            "VRRP filter do not work",
            "lbha apply; nft flush ruleset, or a restart of nftables.service, takes lbha's table away with "
            "the rest",
        )


def _runs(daemon: Engine, text: str, path: str) -> Iterator[Finding]:
    laid = engine.digest_in(text)
    try:
        running = daemon.running()
    except EngineError as error:
        yield Finding("running-configuration", Severity.ERROR, str(error), f"systemctl restart {daemon.name}")
        return
    if running is None:
        yield Finding(
            "running-configuration",
            Severity.ERROR,
            f"{daemon.name} does not run",
            f"systemctl enable --now {daemon.name}",
        )
    elif laid is None:
        yield Finding(
            "running-configuration",
            Severity.WARNING,
            f"{path} carries no digest of lbha: it is another program's, or a template left it out",
            "lbha apply; a template of yours keeps {{ digest }} where it stands",
        )
    elif running.digest != laid:
        yield Finding(
            "running-configuration",
            Severity.ERROR,
            f"{daemon.name} (pid {running.pid}) runs {running.digest or 'a file without a digest'}, and {path} "
            f"is {laid}",
            f"lbha apply; if that says so again, {daemon.name} reads another file than {path}",
        )


@dataclass(frozen=True, slots=True)
class Other:
    """A keepalived that was started on another file than lbha's, and that file's text, where it can be read."""

    pid: int
    conf: str
    text: str | None


def other_keepalived(context: Context) -> Iterator[Finding]:
    """Every keepalived of this network namespace."""
    conf = Path(context.cluster.paths.keepalived_conf).resolve()
    found = processes({"keepalived"})
    # The one that the pid file names is lbha's, whatever it reads: `running-configuration` looks at that.
    ours, pids = Keepalived(context.cluster.paths).pid(), {process.pid for process in found}
    others = [
        Other(process.pid, named, _text(process.pid, named))
        for process in found
        if process.parent not in pids and process.pid != ours and runs_for_long(process)
        if Path(named := conf_of(process)).resolve() != conf
    ]
    yield from judge_others(others, context.cluster.vips, context.cluster.virtual_router_id)


def runs_for_long(process: Process) -> bool:
    """Not one that only answers: lbha asks for the version, keepalived itself has another test a file."""
    return not any(word.partition("=")[0] in _QUESTIONS for word in process.argv[1:])


def conf_of(process: Process) -> str:
    """The file that a keepalived was started on."""
    words = process.argv[1:]
    for place, word in enumerate(words):
        if word in ("-f", "--use-file") and place + 1 < len(words):
            return words[place + 1]
        for prefix in ("--use-file=", "-f"):
            if word.startswith(prefix) and word != prefix:
                return word.removeprefix(prefix)
    return _DEFAULT_CONF


def judge_others(others: list[Other], vips: tuple[str, ...], router: int) -> Iterator[Finding]:
    """Whether another keepalived here means this cluster's VIP."""
    for other in others:
        words = set(re.split(r"[\s/]+", other.text or ""))
        common = [vip for vip in vips if vip in words]
        if str(router) in _ROUTER.findall(other.text or ""):
            common.append(f"virtual_router_id {router}")
        if common:
            yield Finding(
                "other-keepalived",
                Severity.FATAL,
                f"another keepalived (pid {other.pid}) runs here on {other.conf}, with {' and '.join(common)}: "
                "two on one node fight for the VIP",
                f"stop it, or set [paths] keepalived_conf to {other.conf}",
            )
        else:
            yield Finding(
                "other-keepalived",
                Severity.WARNING,
                f"another keepalived (pid {other.pid}) runs here on {other.conf}",
                "stop it if it is of no use: on each start it takes the addresses of its own file away",
            )


def _text(pid: int, conf: str) -> str | None:
    try:
        return Path(f"/proc/{pid}/root{conf}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
