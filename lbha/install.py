"""`lbha install` on a host with systemd: lays the units (`lbha.laying`), applies lbha.toml, and enables and
starts what is not yet. Doing it again changes nothing. Needs root.

What haproxy and keepalived read before is kept in {state_dir}/before; `lbha.uninstall` puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lbha import engine, files, nftables, systemd, units
from lbha.errors import ApplyError, LbhaError
from lbha.laying import Laying, Plan
from lbha.model import Cluster, Mode, Rendered
from lbha.units import UNITS, Setup

ENGINES = ("haproxy", "keepalived")
"""In the order in which they start: the VIP should not come before haproxy can serve behind it."""

BEFORE = "before"

Tell = Callable[[str], None]


def install(
    cluster: Cluster,
    setup: Setup,
    templates: Mapping[str, str],
    apply: Callable[[], None],
    tell: Tell,
    *,
    force: bool = False,
) -> None:
    """Lay, apply, start; each thing that was done is told in a line. Raises LbhaError, OSError.

    `apply` is what `lbha apply` does. `force` lays files anew that somebody changed.
    """
    missing = [name for name in ENGINES if engine.installed(name) is None]
    if missing:
        raise LbhaError(f"{' and '.join(missing)} not installed; apt-get install {' '.join(missing)}")
    wanted = units.files(setup, templates)
    laying = Laying(Path("/"), setup.paths.state_dir)
    plan = laying.plan(wanted, force=force)
    earlier = laying.manifest()
    retired = [unit for unit in UNITS[earlier.mode] if unit not in UNITS[setup.mode]] if earlier else []
    for unit in retired:
        stop(unit, tell)
    if not plan.idle or earlier is None or earlier.mode is not setup.mode:
        laying.lay(wanted, plan, setup.mode)
        tell_plan(plan, "laid", tell)
        systemd.systemctl("daemon-reload")
        systemd.create_files("/etc/tmpfiles.d/lbha.conf")
    else:
        tell_plan(plan, "laid", tell)
    foreign = _keep_before(cluster)
    apply()
    for name in ENGINES:
        if f"{name}.service" in foreign and systemd.is_active(f"{name}.service"):
            # A reload would keep what it started with: haproxy its sockets' modes, keepalived the host's /tmp.
            systemd.systemctl("restart", f"{name}.service")
            tell(f"restarted {name}.service: it was started with another configuration")
        start(f"{name}.service", tell)
    changed = {Path(path).name for path in plan.changed}
    for unit in UNITS[setup.mode]:
        start(unit, tell)
        # A drain that is restarted would drain.
        if unit == "lbha-agent.service" and changed & {unit, "hardening.conf"}:
            systemd.systemctl("try-restart", unit)
            tell(f"restarted {unit}: its unit has changed")


def tell_plan(plan: Plan, verb: str, tell: Tell) -> None:
    """A line for each file that is not simply in its place."""
    for path in plan.new:
        tell(f"{verb} {path}")
    for path in plan.changed:
        tell(f"{verb} {path} anew")
    for path in plan.obsolete:
        tell(f"{'removed' if verb == 'laid' else 'would remove'} {path}")
    for path in plan.kept:
        tell(f"kept {path}: somebody changed it; --force lays lbha's own")


def start(unit: str, tell: Tell) -> None:
    """Enable and start, where it is not."""
    if not systemd.is_enabled(unit):
        systemd.systemctl("enable", unit)
        tell(f"enabled {unit}")
    if not systemd.is_active(unit):
        systemd.systemctl("start", unit)
        tell(f"started {unit}")


def stop(unit: str, tell: Tell) -> None:
    """Disable and stop, where it is not."""
    if systemd.is_enabled(unit) or systemd.is_active(unit):
        systemd.systemctl("disable", "--now", unit)
        tell(f"stopped and disabled {unit}")


def _keep_before(cluster: Cluster) -> set[str]:
    """Copies of the engines' files of before lbha; the units that read them so far."""
    kept = Path(cluster.paths.state_dir) / BEFORE
    found = set()
    for name, path in Rendered.targets(cluster.paths).items():
        data = files.read(path)
        if data is not None and not is_ours(data) and name != nftables.FILE:
            files.private_directory(kept)
            files.write(kept / name, data, files.PRIVATE)
            found.add(f"{name.partition('.')[0]}.service")
    return found


def is_ours(data: bytes) -> bool:
    """Whether lbha has rendered it."""
    text = data.decode("utf-8", "replace")
    return engine.digest_in(text) is not None or text == nftables.NOTHING


def hidden_path(cluster: Cluster, setup: Setup) -> str | None:
    """A file that the units could not see, and why; None when they see all."""
    named = [setup.program, setup.config_file, *(path for path in _named(cluster) if path)]
    for path in named:
        if directory := units.hidden(path):
            return (
                f"{path} is below {directory}, which lbha's units cannot see; keep it in /etc/lbha for example"
            )
    return None


def _named(cluster: Cluster) -> list[str | None]:
    found: list[str | None] = [cluster.templates, cluster.peers.ca, cluster.peers.cert, cluster.peers.key]
    for service in cluster.services:
        if service.tls:
            found += [service.tls.ca, service.tls.cert, service.tls.key]
        found.append(service.token_file)
        if isinstance(service.backends, str) and service.backends.startswith("etcd-env:"):
            found.append(service.backends.partition(":")[2])
    return found


def check_systemd() -> None:
    """LbhaError where systemd does not run this host."""
    if not systemd.runs():
        raise LbhaError("systemd does not run here; --root DIR only lays files, into an image for example")


def mode_of(cluster: Cluster, asked: str | None) -> Mode:
    """What lbha.toml says. ApplyError when another one was asked for: keepalived obeys lbha.toml."""
    if asked is not None and asked != cluster.health.mode.value:
        raise ApplyError(
            f'--mode {asked}, but [health] mode = "{cluster.health.mode}"; write [health] mode = "{asked}" in '
            "lbha.toml, on every node"
        )
    return cluster.health.mode
