"""An advert of the real keepalived, by IPv4 and by IPv6, is one that the agent hears."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

CONFIG = """
[cluster]
name = "prod"
vip = "{net}100"
interface = "eth0"
[nodes]
a = "{net}11"
b = "{net}12"
[services.apiserver]
kind = "kube-apiserver"
[health]
mode = "script"
"""

HEAR = """
import socket, sys
from lbha.vrrp import PROTOCOL
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_RAW, PROTOCOL) as ear:
    ear.settimeout(15)
    if family == socket.AF_INET6:
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    print("listening", flush=True)
    try:
        data, ancillary, _, sender = ear.recvmsg(1024, 64)
    except TimeoutError:
        sys.exit("nothing heard")
    hops = data[8] if family == socket.AF_INET else int.from_bytes(ancillary[0][2], sys.byteorder)
    print(sender[0], hops)
"""


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Two namespaces on one cable."""
    names = [f"lbha-hops-{os.getpid()}-{each}" for each in "ab"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        cable = ["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1]]
        subprocess.run(["ip", "-n", names[0], *cable], check=True)
        for number, name in enumerate(names, 11):
            for words in (
                ["addr", "add", f"10.0.0.{number}/24", "dev", "eth0"],
                ["addr", "add", f"fd00::{number}/64", "dev", "eth0", "nodad"],
                ["link", "set", "lo", "up"],
                ["link", "set", "eth0", "up"],
            ):
                subprocess.run(["ip", "-n", name, *words], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.parametrize("net", ["10.0.0.", "fd00::"])
def test_an_advert_comes_with_255_hops(nodes: list[str], tmp_path: Path, net: str) -> None:
    config = tmp_path / "lbha.toml"
    config.write_text(CONFIG.format(net=net))
    render = [sys.executable, "-m", "lbha", "render", "-c", config, "--node", "a", "--out", tmp_path]
    subprocess.run(render, check=True, capture_output=True)
    # Track scripts and users of a real host are not there; adverts are all that matters here.
    text = (tmp_path / "keepalived.conf").read_text()
    own = text[text.index("vrrp_instance") :]
    kept = re.sub(r"  track_\w+ \{[^}]*\}\n", "", own)
    assert ("unicast_ttl 255" in own) == (":" in net)
    bare = tmp_path / "bare.conf"
    bare.write_text(f"global_defs {{\n  vrrp_version 3\n}}\n{kept}")
    inside = ["ip", "netns", "exec"]
    with subprocess.Popen(
        [*inside, nodes[1], sys.executable, "-c", HEAR, net], stdout=subprocess.PIPE, text=True
    ) as hear:
        assert hear.stdout is not None
        assert hear.stdout.readline() == "listening\n"
        argv = [
            "keepalived",
            "--dont-fork",
            "--log-console",
            "-f",
            bare,
            "-p",
            tmp_path / "p",
            "-r",
            tmp_path / "r",
        ]
        with (tmp_path / "log").open("w") as log:
            daemon = subprocess.Popen([*inside, nodes[0], *argv], stdout=log, stderr=log)
        try:
            heard = hear.stdout.read().split()
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(10)
    assert heard == [f"{net}11", "255"], (tmp_path / "log").read_text()
