"""The files that `lbha install` lays for systemd: those of templates/, with this host's paths in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from lbha.model import Mode, Paths

_SYSTEMD = "/etc/systemd/system"
_TMPFILES = "/etc/tmpfiles.d"

_COMMON = (
    "systemd/lbha-.service.d/hardening.conf",
    "systemd/haproxy.service.d/lbha.conf",
    "systemd/keepalived.service.d/lbha.conf",
    "tmpfiles.d/lbha.conf",
)
_FILES = {
    Mode.AGENT: ("systemd/lbha-agent.service", "systemd/lbha-drain.service", *_COMMON),
    Mode.SCRIPT: ("systemd/lbha-reload.service", "systemd/lbha-reload.timer", *_COMMON),
}
UNITS = {
    Mode.AGENT: ("lbha-agent.service", "lbha-drain.service"),
    Mode.SCRIPT: ("lbha-reload.timer",),
}
"""What is enabled and started, in this order; the engines' own units come before them."""

TEMPLATES = tuple(sorted({name for names in _FILES.values() for name in names}))

_EXEC = re.compile(r"^(Exec\w+=-?)lbha (\w+)(.*)$", re.MULTILINE)
_WRITABLE = re.compile(r"^ReadWritePaths=.*$", re.MULTILINE)
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What ProtectHome= and PrivateTmp= take out of a unit's sight."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the units depend on. `node` only where the operator had to say which one this host is."""

    mode: Mode
    program: str
    config_file: str
    paths: Paths
    node: str | None = None


def files(setup: Setup, templates: Mapping[str, str]) -> dict[str, str]:
    """The text of every file by its absolute path; `templates` by their path below templates/."""
    return {_target(name): _fill(templates[name], setup) for name in _FILES[setup.mode]}


def hidden(path: str) -> str | None:
    """The directory above `path` that the units cannot see; None when they see it."""
    return next((each for each in _HIDDEN if path == each or path.startswith(f"{each}/")), None)


def _target(name: str) -> str:
    kind, _, rest = name.partition("/")
    return f"{_SYSTEMD if kind == 'systemd' else _TMPFILES}/{rest}"


def _fill(text: str, setup: Setup) -> str:
    default = Paths()

    def command(found: re.Match[str]) -> str:
        start, verb, rest = found.groups()
        config = "" if setup.config_file == "/etc/lbha/lbha.toml" else f" -c {setup.config_file}"
        node = f" --node {setup.node}" if setup.node and verb in ("agent", "apply") else ""
        return f"{start}{setup.program} {verb}{config}{node}{rest}"

    text = _EXEC.sub(command, text)
    text = text.replace("ConditionPathExists=/etc/lbha/lbha.toml", f"ConditionPathExists={setup.config_file}")
    text = text.replace(f" {default.run_dir}", f" {setup.paths.run_dir}")
    return _WRITABLE.sub(f"ReadWritePaths={' '.join(f'-{each}' for each in _writable(setup.paths))}", text)


def _writable(paths: Paths) -> list[str]:
    """The directories in which lbha renames files into place."""
    parents = {str(PurePath(each).parent) for each in (paths.haproxy_cfg, paths.keepalived_conf)}
    return sorted({*parents, paths.run_dir, paths.state_dir})
