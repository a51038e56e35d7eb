"""Traps in one haproxy.cfg. Measured with haproxy 2.6.12 where a number stands."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from lbha.doctor.haproxy_conf import HaproxyCfg, Proxy, Server
from lbha.doctor.model import Finding, Severity

SLOW = 3.0
"""Seconds until a server that refuses connections is out of the pool."""

SHORT = 300.0
"""Seconds. Shorter timeouts cut an idle watch: the apiserver's own last 5 to 10 min."""

LOW = 1000
"""Connections. A node has some dozen watches open, and all nodes come to one haproxy."""

_APISERVER, _ETCD = 6443, 2379


def server_check(proxy: Proxy) -> Iterator[Finding]:
    """Without a check a server is up for ever."""
    if names := [server.name for server in proxy.servers if not server.has("check")]:
        yield Finding(
            "server-check",
            Severity.ERROR,
            f"nobody checks {', '.join(names)}: a dead one keeps its share of the clients",
            "check on each server line, or default-server check",
        )


def check_times(proxy: Proxy) -> Iterator[Finding]:
    """inter × fall, with fastinter once in doubt; a silent server costs `timeout check` each time as well."""
    checked = [server for server in proxy.servers if server.has("check")]
    if not checked:
        return
    worst = max(checked, key=_refused)
    inter, fall = worst.time("inter", 2.0), worst.number("fall", 3)
    silent = _refused(worst) + fall * (proxy.timeout("check") or min(proxy.timeout("connect") or 0.0, inter))
    if _refused(worst) > SLOW:
        written = "" if worst.has("inter") else " (the default)"
        yield Finding(
            "check-times",
            Severity.WARNING,
            f"inter {inter:g} s{written} × fall {fall}: a dead "
            f"server is sent clients for up to {_refused(worst):.0f} s, a silent one for up to "
            f"{silent:.0f} s",
            "inter 500ms fastinter 100ms fall 3, timeout check 2s (lbha's), and observe layer4 "
            "error-limit 1 on-error mark-down",
        )


def _refused(server: Server) -> float:
    inter = server.time("inter", 2.0)
    return inter + (server.number("fall", 3) - 1) * server.time("fastinter", inter)


def check_question(proxy: Proxy) -> Iterator[Finding]:
    """What is asked of servers that are, by their port, apiservers or etcd members."""
    if proxy.fallback:
        return  # It is open to servers that fail their check, on purpose.
    asks_http = proxy.option("httpchk")
    words = " ".join(" ".join(line) for line in proxy.lines if line[0] in ("option", "http-check"))
    tls = any(line[:2] == ("http-check", "connect") and "ssl" in line for line in proxy.lines) or any(
        server.has("check-ssl") or server.has("ssl") for server in proxy.servers
    )
    ports = {server.port for server in proxy.servers if server.has("check")}
    if "/healthz" in words:
        yield Finding(
            "check-question",
            Severity.WARNING,
            "asks /healthz, which is deprecated and stays 200 while the apiserver shuts down: "
            "clients are sent to it until it is gone",
            "/readyz: it fails at once at SIGTERM, and --shutdown-delay-duration keeps serving meanwhile",
        )
    if _APISERVER in ports and not (asks_http and tls):
        yield Finding(
            "check-question",
            Severity.WARNING,
            "checks apiservers by a bare connection: one that answers 500 stays in the pool, and "
            "each check leaves a TLS error in its log",
            "option httpchk; http-check send meth GET uri /readyz; check-ssl verify required ca-file CA",
        )
    if _ETCD in ports and not asks_http:
        yield Finding(
            "check-question",
            Severity.WARNING,
            "checks etcd by a bare connection: a member without a quorum stays in the pool",
            "option httpchk; http-check send meth GET uri /health?exclude=NOSPACE; check-ssl with a client "
            "certificate",
        )


def redispatch(proxy: Proxy) -> Iterator[Finding]:
    """Where a connection to a dead server goes next."""
    if not proxy.option("redispatch") and len(proxy.servers) > 1:
        yield Finding(
            "redispatch",
            Severity.ERROR,
            "has no option redispatch: a connection insists on the "
            "dead server (473 of 2000 failed until its check did; with redispatch none, measured)",
            "option redispatch 1; retries 3",
        )


def idle_watches(proxy: Proxy) -> Iterator[Finding]:
    """What ends a session whose server lost its power."""
    ends = all(
        server.value("on-marked-down") == "shutdown-sessions" or server.has("tcp-ut")
        for server in proxy.servers
    )
    if not ends and not proxy.option("srvtcpka") and not proxy.option("tcpka"):
        yield Finding(
            "idle-watches",
            Severity.WARNING,
            "nothing ends an idle watch on a server whose host is "
            "dead: no on-marked-down shutdown-sessions, no srvtcpka, no tcp-ut (over 25 s and on, "
            "measured)",
            "option srvtcpka with srvtcpka-idle 10s and tcp-ut 10s (7 s), or on-marked-down "
            "shutdown-sessions (2 s, which also ends connections that redispatch would have saved)",
        )


def short_timeouts(proxy: Proxy) -> Iterator[Finding]:
    """`timeout tunnel` takes the place of the others once both sides have spoken."""
    tunnel = proxy.timeout("tunnel")
    both = {"client": proxy.client_timeout(), "server": proxy.timeout("server")}
    times = {name: value for name, value in both.items() if value is not None}
    shortest = tunnel if tunnel is not None else min(times.values(), default=None)
    if shortest is not None and shortest < SHORT and proxy.mode == "tcp":
        key = "timeout tunnel" if tunnel is not None else f"timeout {min(times, key=lambda name: times[name])}"
        yield Finding(
            "short-timeouts",
            Severity.WARNING,
            f"{key} {shortest:g}s"
            f"{'' if tunnel is not None else ' and no timeout tunnel'}: watches, kubectl logs -f and exec "
            "that are quiet for longer are cut (kubeadm's issues 2227 and 1685)",
            "timeout tunnel 1h (and timeout client, server 1h); keepalives find the dead ones",
        )


def old_processes(cfg: HaproxyCfg) -> Iterator[Finding]:
    """Long timeouts let an old worker live."""
    if not any(line[0] == "hard-stop-after" for line in cfg.globals):
        yield Finding(
            "old-processes",
            Severity.WARNING,
            "has no hard-stop-after: after each reload the old worker lives as long as its "
            "longest watch, and checks no server any more",
            "global: hard-stop-after 10m",
        )


def bind_clash(cfg: HaproxyCfg) -> Iterator[Finding]:
    """On a stacked node haproxy and the server share a host."""
    listened = cfg.binds()
    ports = {server.port for proxy in cfg.proxies for server in proxy.servers}
    for address, port in listened:
        if port in ports and not address:
            yield Finding(
                "bind-clash",
                Severity.WARNING,
                f"listens on every address at port {port}, and its servers listen at {port}: "
                "on a node that is a server itself, only one of the two can start",
                f"bind VIP:{port} transparent, and the server on its node's address; or another port for "
                "haproxy",
            )


def low_maxconn(cfg: HaproxyCfg) -> Iterator[Finding]:
    """Of a server, a proxy, or all of haproxy."""
    found = {f"global maxconn {line[1]}": line[1] for line in cfg.globals if line[0] == "maxconn" and line[1:]}
    for proxy in cfg.proxies:
        line = proxy.find("maxconn")
        if line and line[1:]:
            found[f"{proxy.kind} {proxy.name} maxconn {line[1]}"] = line[1]
        for server in proxy.servers:
            if value := server.value("maxconn"):
                found[f"{proxy.name}: server maxconn {value}"] = value
    for told, value in found.items():
        if value.isdigit() and int(value) < LOW:
            yield Finding(
                "low-maxconn",
                Severity.WARNING,
                f"{told}: every watch is a connection that stays; when they are used up the "
                "next client waits for `timeout queue`",
                "leave it out; haproxy takes its bound from the file descriptors",
            )


def host_names(proxy: Proxy) -> Iterator[Finding]:
    """haproxy resolves them while it reads the file, unless `init-addr` says otherwise."""
    at_start = [server for server in proxy.servers if "libc" in (server.value("init-addr") or "libc")]
    if names := [server.host for server in at_start if not _literal(server)]:
        yield Finding(
            "host-names",
            Severity.WARNING,
            f"{', '.join(names)}: with a DNS server that does not "
            "answer, haproxy takes 12 s for each name before it starts or reloads, and may not start at "
            "all (measured)",
            "write addresses",
        )


def _literal(server: Server) -> bool:
    if server.host.startswith(("/", "unix@", "fd@", "abns@")) or "$" in server.host:
        return True  # Variables are not followed.
    try:
        ip_address(server.host.removeprefix("ipv4@").removeprefix("ipv6@"))
    except ValueError:
        return False
    return True
