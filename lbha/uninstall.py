"""`lbha uninstall`: what `lbha install` did, undone. Needs root."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lbha import drain, files, nftables, systemd
from lbha.errors import EngineError
from lbha.install import BEFORE, Tell, is_ours, stop
from lbha.laying import Laying
from lbha.model import Paths, Rendered


def uninstall(paths: Paths, tell: Tell) -> None:
    """The other way round: the VIP leaves first, then the units go, then what the engines read of lbha's.

    lbha.toml and `state_dir` stay. Raises LbhaError, OSError; what was done until then stays done.
    """
    laying = Laying(Path("/"), paths.state_dir)
    if laying.manifest() is None:
        tell("lbha install has laid nothing here")
        return
    # Draining first; and keepalived must not go on: nobody would judge this node's health.
    for unit in ("lbha-drain.service", "lbha-reload.timer", "lbha-agent.service"):
        stop(unit, tell)
    if systemd.is_active("keepalived.service"):
        systemd.systemctl("stop", "keepalived.service")
        tell("stopped keepalived.service")
    _undrain(Path(paths.state_dir))
    removed, kept = laying.take_away()
    for path in removed:
        tell(f"removed {path}")
    for path in kept:
        tell(f"kept {path}: somebody changed it")
    _remove_run_dir(Path(paths.run_dir))
    systemd.systemctl("daemon-reload")
    _put_back(paths, tell)


def _undrain(state_dir: Path) -> None:
    """The drain of the unit that was just stopped would greet the next install."""
    found = files.read(state_dir / drain.FILE)
    if found is not None and b'"until_boot":true' in found:
        drain.save(state_dir, None)


def _put_back(paths: Paths, tell: Tell) -> None:
    """The engines' files of before lbha, or none."""
    kept = Path(paths.state_dir) / BEFORE
    for name, path in Rendered.targets(paths).items():
        data = files.read(path)
        if data is None or not is_ours(data):
            continue
        if name == nftables.FILE:
            with suppress(EngineError):
                nftables.Nftables(paths).reload(nftables.NOTHING)
            path.unlink()
            continue
        before = files.read(kept / name)
        if before is None:
            path.unlink()
            tell(f"removed {path}")
        else:
            files.write(path, before, files.Access(0o644))
            tell(f"put back {path} as it was before lbha")
        unit = f"{name.partition('.')[0]}.service"
        verb = "stop" if before is None else "restart"
        if before is not None or systemd.is_active(unit):
            systemd.systemctl(verb, unit)
            tell(f"{'stopped' if verb == 'stop' else 'restarted'} {unit}")


def _remove_run_dir(run_dir: Path) -> None:
    for path in run_dir.glob("*") if run_dir.is_dir() else ():
        path.unlink()
    with suppress(OSError):
        run_dir.rmdir()
