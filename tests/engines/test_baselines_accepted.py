"""The real engines accept the recipes as the lab lays them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbha.lab import baselines
from lbha.lab.spec import RECIPE_PORTS, LabNode, LabSpec


@pytest.fixture
def directory() -> Iterator[Path]:
    # Below /run and not /tmp: keepalived refuses scripts below a folder that others can write.
    made = Path(f"/run/lbha-test-baselines-{os.getpid()}")
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.mark.parametrize("setup", sorted(RECIPE_PORTS))
def test_both_engines_accept_it(setup: str, directory: Path) -> None:
    nodes = tuple(LabNode(f"n{i}", f"10.77.0.1{i}", f"fd77::1{i}", f"ns{i}", directory) for i in (1, 2, 3))
    ports, none = RECIPE_PORTS[setup], directory / "none"
    lab = LabSpec("t", setup, none, nodes, "10.77.0.100", "c", "s", *ports, none, none, none, "stand-in")
    for name, (text, mode) in baselines.files(lab, nodes[0]).items():
        (directory / name).write_text(text)
        (directory / name).chmod(mode)
    haproxy = subprocess.run(
        ["haproxy", "-c", "-f", directory / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert haproxy.returncode == 0, haproxy.stderr
    in_a_host = 'ip link add eth0 type veth peer name far && exec keepalived -t -f "$1"'
    keepalived = subprocess.run(
        ["unshare", "--net", "sh", "-c", in_a_host, "sh", directory / "keepalived.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert keepalived.returncode == 0, keepalived.stdout + keepalived.stderr
