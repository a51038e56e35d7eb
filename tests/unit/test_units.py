"""The units that `lbha install` lays, as text and in the eyes of systemd itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lbha.config import parse
from lbha.errors import ApplyError
from lbha.install import hidden_path, mode_of
from lbha.model import Mode, Paths
from lbha.units import TEMPLATES, UNITS, Setup, files, hidden

PLAIN = Setup(Mode.AGENT, "/usr/bin/lbha", "/etc/lbha/lbha.toml", Paths())
SYSTEMD = "/etc/systemd/system"


@pytest.fixture
def texts(templates: Path) -> dict[str, str]:
    return {name: (templates / name).read_text() for name in TEMPLATES}


def made(texts: dict[str, str], setup: Setup = PLAIN) -> dict[str, str]:
    return files(setup, texts)


def test_every_template_is_laid_in_some_mode(templates: Path) -> None:
    there = {
        str(path.relative_to(templates))
        for folder in ("systemd", "tmpfiles.d")
        for path in (templates / folder).rglob("*")
        if path.is_file()
    }
    assert there == set(TEMPLATES)


def test_each_mode_has_the_units_that_it_starts(texts: dict[str, str]) -> None:
    for mode in Mode:
        laid = made(texts, Setup(mode, "/usr/bin/lbha", "/etc/lbha/lbha.toml", Paths()))
        assert {f"{SYSTEMD}/{unit}" for unit in UNITS[mode]} <= set(laid)
        assert "/etc/tmpfiles.d/lbha.conf" in laid
        assert (f"{SYSTEMD}/lbha-agent.service" in laid) is (mode is Mode.AGENT)


def test_units_name_the_installed_program_and_nothing_that_is_the_default(texts: dict[str, str]) -> None:
    laid = made(texts)
    assert "\nExecStart=/usr/bin/lbha agent\n" in laid[f"{SYSTEMD}/lbha-agent.service"]
    assert "\nExecStop=-/usr/bin/lbha drain --until-boot " in laid[f"{SYSTEMD}/lbha-drain.service"]


def test_another_place_and_name_are_passed_on(texts: dict[str, str]) -> None:
    paths = Paths(
        state_dir="/srv/state",
        run_dir="/run/other",
        haproxy_cfg="/srv/h/haproxy.cfg",
        keepalived_conf="/srv/k/k",
    )
    agent = made(texts, Setup(Mode.AGENT, "/opt/lbha", "/etc/own.toml", paths, "cp1"))
    unit = agent[f"{SYSTEMD}/lbha-agent.service"]
    assert "\nExecStart=/opt/lbha agent -c /etc/own.toml --node cp1\n" in unit
    assert "\nConditionPathExists=/etc/own.toml\n" in unit
    drain = agent[f"{SYSTEMD}/lbha-drain.service"]
    assert "\nExecStop=-/opt/lbha drain -c /etc/own.toml --until-boot " in drain
    hardening = agent[f"{SYSTEMD}/lbha-.service.d/hardening.conf"]
    assert "\nReadWritePaths=-/run/other -/srv/h -/srv/k -/srv/state\n" in hardening
    lines = agent["/etc/tmpfiles.d/lbha.conf"].splitlines()
    assert all(line.split()[1].startswith("/run/other") for line in lines if not line.startswith("#"))
    script = made(texts, Setup(Mode.SCRIPT, "/opt/lbha", "/etc/own.toml", paths, "cp1"))
    assert (
        "\nExecStart=/opt/lbha apply -c /etc/own.toml --node cp1\n" in script[f"{SYSTEMD}/lbha-reload.service"]
    )


def test_the_templates_are_what_the_defaults_make_of_them(texts: dict[str, str]) -> None:
    """Whoever copies templates/ by hand gets the same units, but for the program's path."""
    for path, text in made(texts).items():
        name = path.removeprefix("/etc/").replace("systemd/system/", "systemd/")
        assert sorted(text.replace("/usr/bin/lbha", "lbha").split()) == sorted(texts[name].split())


def test_the_agents_exposure_is_at_most_3(tmp_path: Path, texts: dict[str, str]) -> None:
    for path, text in made(texts).items():
        place = tmp_path / path.removeprefix(f"{SYSTEMD}/").lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / "lbha-agent.service")],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    found = re.search(r"exposure level for lbha-agent.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= 3.0


@pytest.mark.parametrize("mode", list(Mode))
def test_systemd_finds_no_fault(tmp_path: Path, texts: dict[str, str], mode: Mode) -> None:
    program = tmp_path / "lbha"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    laid = made(texts, Setup(mode, str(program), "/etc/lbha/lbha.toml", Paths()))
    for path, text in laid.items():
        place = tmp_path / "units" / path.removeprefix(f"{SYSTEMD}/").lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    units = [str(tmp_path / "units" / unit) for unit in UNITS[mode]]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_units_cannot_see() -> None:
    assert [hidden(path) for path in ("/root", "/root/x", "/rooted/x", "/tmp/x", "/etc/lbha/x")] == [
        "/root", "/root", None, "/tmp", None,
    ]  # fmt: skip


def test_a_file_that_the_agent_could_not_read_is_named(smallest: str) -> None:
    assert hidden_path(parse(smallest), PLAIN) is None
    cluster = parse(smallest + 'tls = { ca = "/root/ca.crt" }\n')
    assert (hidden_path(cluster, PLAIN) or "").startswith(
        "/root/ca.crt is below /root, which lbha's units cannot"
    )
    cluster = parse(smallest + 'backends = "etcd-env:/home/me/etcd.env"\n')
    assert (hidden_path(cluster, PLAIN) or "").startswith("/home/me/etcd.env is below /home")


def test_the_mode_is_lbha_tomls(smallest: str) -> None:
    script = parse(smallest + '[health]\nmode = "script"\n')
    assert mode_of(script, None) is mode_of(script, "script") is Mode.SCRIPT
    with pytest.raises(ApplyError, match=r'--mode agent, but \[health\] mode = "script"; write'):
        mode_of(script, "agent")
