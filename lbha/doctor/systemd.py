"""What systemd, systemd-networkd and NetworkManager do to the units and to the VIP."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lbha.doctor.context import Context
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.model import Mode

BOOTED = Path("/run/systemd/system")
"""Exists where systemd is process 1 (sd_booted(3))."""

NETWORKD_LINKS = Path("/run/systemd/netif/links")
NETWORKMANAGER_DEVICES = Path("/run/NetworkManager/devices")

_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "Restart", "RuntimeDirectory")
_KEEPS = ("yes", "true", "1", "on", "static")


def units(context: Context) -> Iterator[Finding]:
    """The units that this node needs, as systemd has them."""
    if not BOOTED.is_dir():
        raise DoesNotApply("systemd does not run here")
    agent = context.cluster.health.mode is Mode.AGENT
    names = ("haproxy.service", "keepalived.service", "lbha-agent.service" if agent else "lbha-reload.timer")
    yield from judge_units({name: _show(name) for name in names}, context.cluster.paths.run_dir, agent=agent)


def judge_units(shown: Mapping[str, Mapping[str, str]], run_dir: str, *, agent: bool) -> Iterator[Finding]:
    """`shown`: properties by unit, as `systemctl show` has them."""
    for name, unit in shown.items():
        if unit.get("LoadState") == "not-found":
            yield Finding(
                "units",
                Severity.WARNING,
                f"systemd knows no {name}: nothing starts it",
                "cp -r templates/systemd/* /etc/systemd/system/; systemctl daemon-reload",
            )
        elif unit.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "generated"):
            yield Finding(
                "units",
                Severity.WARNING,
                f"{name} is {unit.get('UnitFileState') or 'not enabled'}: it does not start at boot",
                f"systemctl enable {name}",
            )
        below = f"/run/{unit.get('RuntimeDirectory', '')}"
        if unit.get("RuntimeDirectory") and below == run_dir:
            yield Finding(
                "units",
                Severity.ERROR,
                f"{name} has RuntimeDirectory={unit['RuntimeDirectory']}: systemd replaces {run_dir} at each "
                "start, and keepalived then watches a directory that is gone",
                f"take it out of {name}; templates/tmpfiles.d/lbha.conf makes the directory",
            )
    keepalived = shown.get("keepalived.service", {})
    if keepalived.get("LoadState") == "loaded" and keepalived.get("Restart") in ("no", ""):
        yield Finding(
            "units",
            Severity.WARNING if agent else Severity.ERROR,
            "keepalived.service has Restart=no: a keepalived that is killed leaves the VIP on this node, "
            "beside the next holder's, "
            f"{'until the agent removes it' if agent else 'until somebody starts it'}",
            "cp -r templates/systemd/keepalived.service.d /etc/systemd/system/; systemctl daemon-reload",
        )


def networkd(context: Context) -> Iterator[Finding]:
    """By what systemd-networkd has written of the VIP's interface."""
    state = NETWORKD_LINKS / str(context.interface.index)
    if not state.exists():
        raise DoesNotApply("systemd-networkd does not run here")
    known = dict(_pairs(state.read_text()))
    file = known.get("NETWORK_FILE", "")
    if known.get("ADMIN_STATE") == "unmanaged" or not file:
        raise DoesNotApply(f"systemd-networkd leaves {context.interface.name} alone")
    texts = [path.read_text(errors="replace") for path in (Path(file), *_dropins(Path(file))) if path.exists()]
    yield from judge_networkd(context.interface.name, file, texts)


def _dropins(file: Path) -> list[Path]:
    """NAME.network.d/*.conf, in the order in which systemd reads them: by name, /etc before the rest."""
    places = (Path("/etc/systemd/network"), Path("/run/systemd/network"), file.parent)
    found: dict[str, Path] = {}
    for place in places:
        for path in (place / f"{file.name}.d").glob("*.conf"):
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def judge_networkd(interface: str, file: str, texts: Sequence[str]) -> Iterator[Finding]:
    """`texts`: the .network file and its drop-ins, in their order."""
    keep = ""
    for text in texts:
        section = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                section = line
            elif section == "[Network]" and line.partition("=")[0].strip() == "KeepConfiguration":
                keep = line.partition("=")[2].strip().lower()
    if keep not in _KEEPS:
        yield Finding(
            "networkd",
            Severity.WARNING,
            f"systemd-networkd manages {interface} by {file} with KeepConfiguration={keep or 'no'}: when it "
            "restarts it takes away every address that it did not add, the VIP too",
            f"[Network] KeepConfiguration=yes in {file} (or a drop-in), then networkctl reload",
        )


def network_manager(context: Context) -> Iterator[Finding]:
    """By what NetworkManager has written of the VIP's interface."""
    state = NETWORKMANAGER_DEVICES / str(context.interface.index)
    if not state.exists():
        raise DoesNotApply("NetworkManager does not run here")
    yield from judge_network_manager(context.interface.name, dict(_pairs(state.read_text())))


def judge_network_manager(interface: str, device: Mapping[str, str]) -> Iterator[Finding]:
    """`device`: the keys of the device's state file."""
    if device.get("managed", "").lower() in ("true", "1", "yes", "full"):
        yield Finding(
            "network-manager",
            Severity.WARNING,
            f"NetworkManager manages {interface}: when its connection is activated anew, it takes away "
            "addresses that it did not add, the VIP too",
            f"nmcli device set {interface} managed no, and for good: "
            f"unmanaged-devices=interface-name:{interface} under [keyfile] in "
            "/etc/NetworkManager/conf.d/lbha.conf (something else must configure it then)",
        )


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            yield key.strip(), value.strip()


def _show(name: str) -> dict[str, str]:
    argv = ["systemctl", "show", name, f"--property={','.join(_PROPERTIES)}"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=2, check=False)
    except FileNotFoundError:
        raise NotChecked("systemctl is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotChecked("systemctl does not answer") from None
    if done.returncode:
        raise NotChecked(f"systemctl show {name}: {done.stderr.strip() or done.returncode}")
    return dict(_pairs(done.stdout))
