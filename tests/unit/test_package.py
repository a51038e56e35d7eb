"""What is installed is what was tested: the wheel works in an environment of its own, without this checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NOT_LINKED = ("lbha", "_lbha", "__editable__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Path:
    """A fresh virtual environment with the wheel, as pipx makes it. Its dependencies are links to those here:
    nothing is fetched."""
    made = wheel.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", made], check=True)
    python = made / "bin/python"
    ask = "import sysconfig; print(sysconfig.get_path('platlib'))"
    into = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    for each in Path(sysconfig.get_path("platlib")).iterdir():
        if not each.name.startswith(NOT_LINKED) and each.suffix != ".pth" and not (into / each.name).exists():
            (into / each.name).symlink_to(each)
    for words in (["install", "--no-index", "--no-deps", str(wheel)], ["check"]):
        done = subprocess.run([python, "-m", "pip", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def run(environment: Path, program: str, *words: str, code: int = 0) -> str:
    """What a program of that environment prints, with nothing else in reach. It runs beside the wheel."""
    done = subprocess.run(
        [environment / "bin" / program, *words],
        cwd=environment.parent,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert str(ROOT) not in done.stdout + done.stderr
    return done.stdout


def test_the_wheel_carries_every_template(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for template in (ROOT / "templates").rglob("*"):
        if template.is_file():
            assert f"lbha/templates/{template.relative_to(ROOT / 'templates')}" in packed


def test_the_installed_program_works_on_its_own(environment: Path, smallest: str) -> None:
    (environment.parent / "lbha.toml").write_text(smallest)
    where = run(environment, "python", "-c", "import lbha; print(lbha.__file__)").strip()
    assert Path(where).is_relative_to(environment)
    assert run(environment, "lbha", "--version").startswith("lbha, version ")
    assert "unicast_src_ip 10.0.0.12\n" in run(
        environment, "lbha", "render", "-c", "lbha.toml", "--node", "cp2"
    )
    assert run(environment, "lbha", "completion", "zsh").startswith("#compdef lbha\n")
    assert run(environment, "python", "-m", "lbha.cli.manual").startswith(".TH LBHA 1")


def test_the_installed_program_lays_units_that_name_it(
    environment: Path, smallest: str, tmp_path: Path
) -> None:
    (environment.parent / "lbha.toml").write_text(smallest)
    words = ("install", "--root", str(tmp_path), "-c", "lbha.toml", "--node", "cp2")
    planned = run(environment, "lbha", *words, "--dry-run")
    assert "would lay" in planned and list(tmp_path.iterdir()) == []
    run(environment, "lbha", *words)
    unit = (tmp_path / "etc/systemd/system/lbha-agent.service").read_text()
    assert f"ExecStart={environment / 'bin/lbha'} agent " in unit
    assert run(environment, "lbha", *words) == "nothing to do: every file is in its place\n"


def test_the_installed_track_script_repeats_the_agents_verdict_and_asks_without_one(
    environment: Path, tmp_path: Path
) -> None:
    beat, lbha = tmp_path / "beat", str(environment / "bin/lbha")
    words = (str(beat), lbha, str(tmp_path / "no.sock"))
    beat.write_text(f"{1 << 40} 0\n")
    run(environment, "lbha-track", *words)
    beat.write_text(f"{1 << 40} 7\n")
    run(environment, "lbha-track", *words, code=7)
    beat.unlink()
    run(environment, "lbha-track", *words, code=1)
