"""keepalived.conf and haproxy.cfg files that lbha did not write, such as kubeadm's recipe, before the doctor.

    recipe = read([Path("cp1/keepalived.conf"), Path("cp2/keepalived.conf")], [Path("haproxy.cfg")])
    examine(RECIPE_CHECKS, recipe)

Only the files are judged, and of this host whether it can run their scripts. With every node's keepalived.conf
they are compared as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lbha import keepalived_conf
from lbha.doctor import haproxy_conf
from lbha.doctor import recipe_haproxy as haproxy
from lbha.doctor import recipe_keepalived as keepalived
from lbha.doctor import recipe_nodes as nodes
from lbha.doctor.model import Check
from lbha.doctor.recipe_files import (
    Recipe,
    each_haproxy,
    each_instance,
    each_keepalived,
    each_pool,
    each_router,
    each_script,
)
from lbha.errors import ConfigError

LONGEST = 4 << 20
"""Bytes of a file that is read."""


def read(keepaliveds: Iterable[Path], haproxys: Iterable[Path]) -> Recipe:
    """ConfigError when a file cannot be read or makes no sense."""
    return Recipe(
        tuple(map(_keepalived, keepaliveds)),
        tuple(haproxy_conf.parse(str(path), _text(path)) for path in haproxys),
    )


def _keepalived(path: Path) -> keepalived_conf.KeepalivedConf:
    try:
        return keepalived_conf.parse(str(path), _text(path))
    except ValueError as error:
        raise ConfigError(f"{path} makes no sense as a keepalived.conf: {error}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None


RECIPE_CHECKS: tuple[Check[Recipe], ...] = (
    Check(
        "nopreempt",
        "keepalived: nopreempt, with which no lower priority moves the VIP",
        each_instance(keepalived.nopreempt),
    ),
    Check(
        "auth-pass",
        "keepalived: a password that everybody on the link can read",
        each_instance(keepalived.auth_pass),
    ),
    Check(
        "script-detection",
        "keepalived: seconds until a script that fails counts",
        each_instance(keepalived.script_detection),
    ),
    Check("script-timeout", "keepalived: scripts that may hang", each_script(keepalived.script_timeout)),
    Check(
        "script-user",
        "keepalived: who runs the scripts, and who may change them",
        each_keepalived(keepalived.script_user),
    ),
    Check(
        "script-runs",
        "keepalived: this host can run the scripts, or it would take itself for healthy",
        each_script(keepalived.script_runs),
    ),
    Check(
        "script-asks",
        "keepalived: whether a script asks this node's own haproxy",
        keepalived.script_asks,
    ),
    Check(
        "adverts", "keepalived: seconds until a silent holder is replaced", each_instance(keepalived.adverts)
    ),
    Check("multicast", "keepalived: adverts to everybody", each_instance(keepalived.multicast)),
    Check("vip-prefix", "keepalived: a VIP with a network's prefix", each_instance(keepalived.vip_prefix)),
    Check(
        "example-router-id",
        "keepalived: the virtual router id of every example",
        each_instance(keepalived.example_router_id),
    ),
    Check(
        "one-cluster", "keepalived, all nodes: what must be the same everywhere", each_router(nodes.one_cluster)
    ),
    Check(
        "same-priority",
        "keepalived, all nodes: two that take over at the same moment",
        each_router(nodes.same_priority),
    ),
    Check("state-master", "keepalived, all nodes: who takes the VIP back", each_router(nodes.state_master)),
    Check(
        "script-weight",
        "keepalived, all nodes: whether a failed script moves the VIP",
        each_router(nodes.script_weight),
    ),
    Check("peers-listed", "keepalived, all nodes: each one lists the others", each_router(nodes.peers_listed)),
    Check("server-check", "haproxy: servers that nobody checks", each_pool(haproxy.server_check)),
    Check(
        "check-times", "haproxy: seconds until a dead server is out of the pool", each_pool(haproxy.check_times)
    ),
    Check(
        "check-question",
        "haproxy: what the checks ask an apiserver or an etcd",
        each_pool(haproxy.check_question),
    ),
    Check("redispatch", "haproxy: connections that insist on a dead server", each_pool(haproxy.redispatch)),
    Check(
        "idle-watches", "haproxy: watches on a server that died without a word", each_pool(haproxy.idle_watches)
    ),
    Check(
        "short-timeouts",
        "haproxy: timeouts that cut watches, logs -f and exec",
        each_pool(haproxy.short_timeouts),
    ),
    Check(
        "old-processes", "haproxy: workers that outlive a reload for ever", each_haproxy(haproxy.old_processes)
    ),
    Check("bind-clash", "haproxy: a listener where the servers listen", each_haproxy(haproxy.bind_clash)),
    Check("low-maxconn", "haproxy: a limit that watches use up", each_haproxy(haproxy.low_maxconn)),
    Check(
        "host-names", "haproxy: names that DNS must know before haproxy starts", each_pool(haproxy.host_names)
    ),
)
"""Checks of files."""
