"""Traps in one keepalived.conf. Measured with keepalived 2.2.7 where a number stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lbha.doctor.model import Finding, Severity
from lbha.doctor.recipe_files import Recipe, each_instance
from lbha.doctor.scripts import judge_path, path_facts
from lbha.keepalived_conf import Instance, KeepalivedConf, Script

SLOW = 5.0
"""Seconds that a script may take to be believed: clients' own timeouts are of that order."""

SILENT = 2.0
"""Seconds of silence until a takeover: with three adverts a second long it is 3.0 to 4.0."""

EXAMPLE = 51
"""The virtual router id of keepalived's own example, and of kubeadm's."""

_URL = re.compile(r"(https?)://(\[[0-9a-fA-F:.]+\]|[^\s/:\"'\[]+)(?::(\d+))?")


def nopreempt(instance: Instance) -> Iterator[Finding]:
    """It works against every weight."""
    weighted = [script.name for script in instance.scripts if script.weight]
    if instance.nopreempt:
        yield Finding(
            "nopreempt",
            Severity.ERROR if weighted else Severity.HINT,
            f"{instance.name} has nopreempt"
            + (
                f", and {', '.join(weighted)} lowers its priority: that moves nothing, because no backup "
                "preempts"
                if weighted
                else ": a lower priority, as a drain would give it, does not move the VIP"
            ),
            "take nopreempt out; to keep the VIP from moving back, give its holder a higher priority",
        )


def auth_pass(instance: Instance) -> Iterator[Finding]:
    """VRRP 2's simple password; version 3 has none (RFC 9568, 1.5)."""
    if instance.auth_pass is not None and instance.version == 3:
        yield Finding(
            "auth-pass",
            Severity.HINT,
            f"{instance.name} has an auth_pass, which keepalived ignores: VRRP 3 knows none, and whoever is on "
            "the link can advertise",
            "take authentication out; let nftables pass protocol 112 from the nodes alone",
        )
    elif instance.auth_pass is not None:
        cut = ", and only its first 8 characters count" if len(instance.auth_pass) > 8 else ""
        yield Finding(
            "auth-pass",
            Severity.WARNING,
            f"{instance.name} has an auth_pass: each advert shows it to everybody on the "
            f"link{cut}; it also binds the cluster to VRRP 2, whose adverts are whole seconds",
            "take authentication out; vrrp_version 3, and let nftables pass protocol 112 from the nodes alone",
        )


def script_detection(instance: Instance) -> Iterator[Finding]:
    """interval × fall, and what a lower priority waits for."""
    for script in instance.scripts:
        waits = instance.down_time if script.weight else 0.0
        total = script.detection + waits
        if total > SLOW:
            yield Finding(
                "script-detection",
                Severity.ERROR if total > 4 * SLOW else Severity.WARNING,
                f"{script.name} fails for {script.detection:g} s (interval "
                f"{script.interval:g} × fall {script.fall}) before it counts"
                + (f", and its weight moves the VIP {waits:.1f} s later" if script.weight else "")
                + f": clients of a dead haproxy wait up to {total:.0f} s",
                "interval 1, fall 2; without a weight (or weight 0) a failure is FAULT, and the VIP "
                "leaves at once",
            )


def script_timeout(script: Script) -> Iterator[Finding]:
    """A script that hangs, as on a frozen haproxy."""
    if script.timeout is None and not re.search(r"\btimeout\b", script.command):
        yield Finding(
            "script-timeout",
            Severity.HINT,
            f"{script.name} has no timeout of its own: a run that hangs counts only after a "
            f"whole interval ({script.interval:g} s), and keepalived before 2.3.3 then starts further "
            "copies",
            f"timeout {max(1, int(script.interval) - 1)}, below the interval, and a shorter one inside "
            "the script",
        )


def script_user(conf: KeepalivedConf) -> Iterator[Finding]:
    """Who runs them."""
    if not conf.scripts:
        return
    if not conf.script_security:
        yield Finding(
            "script-user",
            Severity.WARNING,
            "has no enable_script_security: keepalived runs as root what others than root may change",
            "global_defs { enable_script_security }",
        )
    if not conf.script_user:
        yield Finding(
            "script-user",
            Severity.WARNING,
            "has no script_user: the scripts run as keepalived_script where that user exists "
            "and as root elsewhere, so a node may behave otherwise than the one it was tried on",
            "global_defs { script_user root }, or a user that exists on every node",
        )


def script_runs(script: Script) -> Iterator[Finding]:
    """On this host, by keepalived's rules, which look at the first word alone."""
    for program in programs(script.command)[:1]:
        yield from judge_path("script-runs", program, path_facts(program))


def script_asks(recipe: Recipe) -> Iterator[Finding]:
    """Where the scripts' requests go, by the URLs in them and in the files that they run."""
    binds = {port for cfg in recipe.haproxys for _, port in cfg.binds()}
    servers = {server.port for cfg in recipe.haproxys for proxy in cfg.proxies for server in proxy.servers}

    def judge(instance: Instance) -> Iterator[Finding]:
        for script in instance.scripts:
            files = "".join(content(Path(each)) for each in programs(script.command))
            past = {port for port in servers if port} - binds
            yield from judge_asked(script.name, urls(script.command + files), instance.vips, past)

    yield from each_instance(judge)(recipe)


def judge_asked(
    name: str, asked: set[tuple[str, int]], vips: tuple[str, ...], servers: set[int]
) -> Iterator[Finding]:
    """`asked`: hosts and ports; `servers`: ports at which servers listen, and haproxy does not."""
    if through := sorted({vip.partition("/")[0] for vip in vips} & {host for host, _ in asked}):
        yield Finding(
            "script-asks",
            Severity.WARNING,
            f"{name} asks the VIP {', '.join(through)}: on a backup that is the holder's haproxy, so every "
            "node has the same opinion, and none of it is about itself",
            "ask this node's own haproxy: its admin socket, or a port of its own on localhost",
        )
    if past := sorted({port for _, port in asked} & servers):
        yield Finding(
            "script-asks",
            Severity.WARNING,
            f"{name} asks port {', '.join(map(str, past))}, which is a server's and not haproxy's: a sick "
            "apiserver moves the VIP and cuts every connection, although haproxy has healthy ones",
            "haproxy judges servers; let the script judge haproxy alone",
        )


def urls(text: str) -> set[tuple[str, int]]:
    """Host and port of every URL in a script."""
    return {
        (host.strip("[]"), int(port or (443 if scheme == "https" else 80)))
        for scheme, host, port in _URL.findall(text)
    }


def adverts(instance: Instance) -> Iterator[Finding]:
    """How long a holder that lost its power is waited for."""
    if instance.down_time > SILENT:
        yield Finding(
            "adverts",
            Severity.HINT,
            f"{instance.name}: a holder that falls silent is replaced after "
            f"{instance.down_time:.1f} s ({instance.adverts} adverts of {instance.advert:g} s, and the "
            "skew)",
            "vrrp_version 3, advert_int 0.1, down_timer_adverts 6: 0.6 s (measured), the same on every node",
        )


def multicast(instance: Instance) -> Iterator[Finding]:
    """No list of peers."""
    if not instance.peers:
        group = "ff02::12" if any(":" in vip for vip in instance.vips) else "224.0.0.18"
        yield Finding(
            "multicast",
            Severity.HINT,
            f"{instance.name} has no unicast_peer: adverts go to {group}, which many "
            "clouds and switches drop (each node then holds the VIP), and whoever is on the link takes "
            "part",
            "unicast_src_ip and unicast_peer, with every other node in it",
        )


def vip_prefix(instance: Instance) -> Iterator[Finding]:
    """keepalived's default is /32."""
    for vip in instance.vips:
        address, _, prefix = vip.partition("/")
        if prefix and prefix != ("128" if ":" in address else "32"):
            yield Finding(
                "vip-prefix",
                Severity.WARNING,
                f"{instance.name} adds {vip}: the VIP may become the source of the node's own "
                "connections, and when it leaves it can take the interface's other addresses with it",
                f"{address}/{'128' if ':' in address else '32'}",
            )


def example_router_id(instance: Instance) -> Iterator[Finding]:
    """The number that everybody copies."""
    if instance.router == EXAMPLE:
        yield Finding(
            "example-router-id",
            Severity.HINT,
            f"{instance.name} has virtual_router_id {EXAMPLE}, the one of every example: the "
            "next cluster on this link likely has it too",
            "another one, 1 to 255; tcpdump -ni any proto 112 shows who is there",
        )


def programs(command: str) -> list[str]:
    """The program of a command line, and the script that `timeout SECONDS`, `sh` or the like runs."""
    words = command.split()
    return words[:1] + [word for word in words[1:] if word.startswith("/")][:1]


def content(path: Path) -> str:
    """The text of a script; empty where there is none to be read."""
    try:
        with path.open("rb") as file:
            data = file.read(64 << 10)
    except OSError:
        return ""
    return data.decode("utf-8", "replace") if data[:2] == b"#!" else ""
