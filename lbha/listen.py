"""Who listens on this host where haproxy would: the facts for `lbha.redirect`, by the kernel's own word."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from pathlib import Path

from lbha.history import History
from lbha.model import Cluster, Endpoint, Listen
from lbha.redirect import Redirect, redirects

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h; Python names neither


def find_redirects(cluster: Cluster) -> tuple[Redirect, ...]:
    """What this host must redirect: by lbha.toml, by who listens here, and by what is in force.

    PermissionError where only root may read what is in force.
    """
    newest = History(Path(cluster.paths.state_dir) / "history").newest()
    return redirects(cluster, taken_ports(cluster), newest.manifest.redirected if newest else ())


def taken_ports(cluster: Cluster) -> dict[str, str]:
    """By service with `listen = "auto"`: who listens at its port on every address of this host, if anybody.

    That VIP:port can be bound settles it for most, in 20 µs; only otherwise is every socket looked at.
    """
    found = {}
    for service in cluster.services:
        if service.listen is not Listen.AUTO:
            continue
        if all(_can_bind(Endpoint(vip, service.port)) for vip in cluster.vips):
            continue
        if listener := _listener_everywhere(service.port):
            found[service.name] = listener
    return found


def bind_probe(endpoint: Endpoint, *, transparent: bool) -> None:
    """Bind as haproxy will, without listening. OSError as of bind(2); PermissionError without root."""
    version = ip_address(endpoint.address).version
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_STREAM) as probe:
        # With SO_REUSEPORT haproxy's own listeners, which have it too, are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if transparent and version == 4:
            probe.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        elif transparent:
            probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        probe.bind((endpoint.address, endpoint.port))


def _can_bind(endpoint: Endpoint) -> bool:
    """False also where it may not be tried: then the list of sockets tells."""
    try:
        bind_probe(endpoint, transparent=True)
    except OSError as error:
        return error.errno not in (errno.EADDRINUSE, errno.EPERM, errno.EACCES)
    return True


def _listener_everywhere(port: int) -> str | None:
    """`kube-apiserver (pid 812) listens on 0.0.0.0:6443`; None when nobody listens on every address.

    [::] counts for both families: what Go calls 0.0.0.0 is that.
    """
    import psutil

    for each in psutil.net_connections(kind="tcp"):
        if each.status != psutil.CONN_LISTEN or not each.laddr or each.laddr.port != port:
            continue
        if each.laddr.ip in ("0.0.0.0", "::"):
            return f"{_program(each.pid)} listens on {Endpoint(each.laddr.ip, port)}"
    return None


def _program(pid: int | None) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).name()} (pid {pid})" if pid else "another program"
    except psutil.Error:
        return "another program"
