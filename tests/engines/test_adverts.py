"""The real keepalived's adverts are heard by the agent, and the agent's are obeyed; by IPv4 and by IPv6."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def keepalived_conf(tmp_path: Path, node: str, net: str, more: str = "") -> str:
    """The instance that lbha renders for the node, without track scripts and users of a real host."""
    config = tmp_path / "lbha.toml"
    config.write_text(CONFIG.format(net=net) + more)
    render = [sys.executable, "-m", "lbha", "render", "-c", config, "--node", node, "--out", tmp_path]
    subprocess.run(render, check=True, capture_output=True)
    text = (tmp_path / "keepalived.conf").read_text()
    own = re.sub(r"  track_\w+ \{[^}]*\}\n", "", text[text.index("vrrp_instance") :])
    return f"global_defs {{\n  vrrp_version 3\n  vrrp_check_unicast_src\n}}\n{own}"


@contextmanager
def keepalived(netns: str, conf: str, tmp_path: Path) -> Iterator[Path]:
    """It runs there; yields its log."""
    file, log = tmp_path / "bare.conf", tmp_path / "log"
    file.write_text(conf)
    argv = [
        "keepalived",
        "--dont-fork",
        "--log-console",
        "-f",
        file,
        "-p",
        tmp_path / "p",
        "-r",
        tmp_path / "r",
    ]
    with log.open("w") as out:
        daemon = subprocess.Popen(["ip", "netns", "exec", netns, *argv], stdout=out, stderr=out)
    try:
        yield log
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(10)


@pytest.mark.parametrize("net", ["10.0.0.", "fd00::"])
def test_an_advert_comes_with_255_hops(nodes: list[str], tmp_path: Path, net: str) -> None:
    conf = keepalived_conf(tmp_path, "a", net)
    assert ("unicast_ttl 255" in conf) == (":" in net)
    argv = ["ip", "netns", "exec", nodes[1], sys.executable, "-c", HEAR, net]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as hear:
        assert hear.stdout is not None
        assert hear.stdout.readline() == "listening\n"
        with keepalived(nodes[0], conf, tmp_path) as log:
            heard = hear.stdout.read().split()
    assert heard == [f"{net}11", "255"], log.read_text()


RESIGN = """
import sys
from pathlib import Path
from lbha import config
from lbha.resign import resign
cluster = config.load(Path(sys.argv[1]))
resign(cluster, cluster.node("a"), cluster.node("b"))
"""


@pytest.mark.parametrize("net", ["10.0.0.", "fd00::"])
def test_a_backup_that_the_holder_asks_takes_the_vip_at_once(
    nodes: list[str], tmp_path: Path, net: str
) -> None:
    """Without it, this one waits for three advert intervals of 8 s."""
    conf = keepalived_conf(tmp_path, "b", net, "[failover]\nadvert_interval = 8\n")
    # Of the 24 s, it is to wait the skew alone: (256 - 250) / 256 of 8 s.
    conf = re.sub(r"priority \d+", "priority 250", conf)

    def held() -> bool:
        shown = subprocess.run(["ip", "-n", nodes[1], "addr"], capture_output=True, text=True, check=True)
        return f"{net}100/" in shown.stdout

    with keepalived(nodes[1], conf, tmp_path) as log:
        wait_for(lambda: "Entering BACKUP STATE" in log.read_text(), 10)
        assert not held()
        asked = time.monotonic()
        argv = [sys.executable, "-c", RESIGN, tmp_path / "lbha.toml"]
        subprocess.run(["ip", "netns", "exec", nodes[0], *argv], check=True)
        wait_for(held, 10)
        assert time.monotonic() - asked < 8, "it heard nothing"


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.05)
