"""One control plane for all tests of booted machines, and an honest word where there can be none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import image
import pytest
from cluster import ControlPlane
from machine import Machine, Network, missing_programs

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lbha's Debian package, built from this checkout."""
    out = tmp_path_factory.mktemp("package")
    done = subprocess.run([ROOT / "scripts/build-deb", out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """A directory in memory: etcd must not wait for a shared disk. Skips where no machine can be booted."""
    if os.geteuid() != 0:
        pytest.skip("no machine can be booted: not root")
    if missing := missing_programs():
        pytest.skip(f"no machine can be booted: {', '.join(missing)} not installed")
    directory = Path(f"/run/lbham{os.getpid()}")
    directory.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)
    directory.rmdir()


@pytest.fixture(scope="session")
def base(work: Path) -> Path:
    """The tree to boot from. Skips, with the reason, where systemd-nspawn cannot work or no mirror answers."""
    try:
        tree = image.base()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no Debian to boot: {' '.join(error.cmd)}: {(error.stderr or error.stdout)[-300:]}")
    except OSError as error:
        pytest.skip(f"no Debian to boot: {error}")
    network = Network(f"{work.name}-try", "10.0.0.200/24")
    machine = Machine("try", "", work, tree, network.switch)
    try:
        problem = machine.try_run("/bin/true")
    finally:
        machine.destroy()
        network.destroy()
    if problem is not None:
        pytest.skip(f"no machine can be booted: systemd-nspawn says: {problem}")
    return tree


@pytest.fixture(autouse=True)
def journals(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the machines' journals say of a test that failed."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        for machine in request.getfixturevalue("control_plane").machines.values():
            units = ("-u", "lbha-*", "-u", "keepalived", "-u", "haproxy", "-u", "etcd")
            print(machine.name, machine("journalctl", "--no-pager", "-n", "40", *units, check=False))


@pytest.fixture(scope="session")
def control_plane(work: Path, base: Path, package: Path) -> Iterator[ControlPlane]:
    """Three machines that have booted, without lbha."""
    plane = ControlPlane(work, base, package)
    try:
        plane.power_on()
        yield plane
    finally:
        plane.destroy()
