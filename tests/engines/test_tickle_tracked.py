"""Tickles of a node whose connection tracking remembers an earlier time: the VIP was here, went away and comes
back, and a client has used one port both times."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

CONFIG = """
[cluster]
name = "prod"
vips = ["10.0.0.100", "fd00::100"]
[nodes]
a = ["10.0.0.11", "fd00::11"]
b = ["10.0.0.12", "fd00::12"]
[services.apiserver]
kind = "kube-apiserver"
listen = "redirect"
"""

SCRIPT = """
import errno, socket, struct, subprocess, sys
from pyroute2 import netns
from lbha import tickle
from lbha.connections import connection
from lbha.model import Endpoint
from lbha.pause import While
rules, port, one, other, client, vip, source = sys.argv[1:]
family = socket.AF_INET6 if ":" in vip else socket.AF_INET

def ip(*words): subprocess.run(["ip", *words], check=True)
def give(to, away):
    alone = vip + ("/128" if family == socket.AF_INET6 else "/32")
    if away: ip("-n", away, "addr", "del", alone, "dev", "eth0")
    ip("-n", to, "addr", "add", alone, "dev", "eth0", *["nodad"] * (family == socket.AF_INET6))
    ip("-n", client, "neigh", "flush", "dev", "eth0")
def listen(where, port):
    netns.setns(where)
    listener = socket.create_server((vip, port), family=family)
    return listener
def connect():
    netns.setns(client)
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((source, 40001))
    made.settimeout(3)
    made.connect((vip, 6443))
    return made

netns.setns(one)
subprocess.run(["nft", "-f", rules], check=True)
give(one, None)
before = listen(one, int(port))
earlier = connect()
before.accept()
earlier.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
earlier.close()

give(other, one)
meanwhile = listen(other, 6443)
later = connect()
held = meanwhile.accept()

give(one, other)
netns.setns(one)
key = connection(Endpoint(vip, 6443), Endpoint(*later.getsockname()[:2]))
tickle.tell([key], [vip], 1000, While(lambda: True))
try:
    later.recv(1)
    print("ended")
except OSError as error:
    print(errno.errorcode.get(error.errno, "not told"))
"""


@pytest.fixture
def network() -> Iterator[list[str]]:
    """Two nodes and a client on one switch."""
    prefix = f"lbha-told-{os.getpid()}"
    switch, *hosts = names = [f"{prefix}-{each}" for each in ("switch", "one", "other", "client")]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        ip(switch, "link", "add", "br0", "type", "bridge")
        ip(switch, "link", "set", "br0", "up")
        for number, name in enumerate(hosts, 11):
            ip(switch, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip(switch, "link", "set", f"p{number}", "master", "br0", "up")
            ip(name, "addr", "add", f"10.0.0.{number}/24", "dev", "eth0")
            ip(name, "addr", "add", f"fd00::{number}/64", "dev", "eth0", "nodad")
            ip(name, "link", "set", "eth0", "up")
        yield hosts
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(netns: str, *words: str) -> None:
    subprocess.run(["ip", "-n", netns, *words], check=True)


VIPS = pytest.mark.parametrize(("vip", "source"), [("10.0.0.100", "10.0.0.13"), ("fd00::100", "fd00::13")])


def told(rules: Path, port: int, network: list[str], vip: str, source: str) -> str:
    """What a client hears that is told by a node with these rules, whose haproxy listens on `port`."""
    argv = [sys.executable, "-c", SCRIPT, str(rules), str(port), *network, vip, source]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.strip()


@VIPS
def test_where_the_port_is_redirected(network: list[str], tmp_path: Path, vip: str, source: str) -> None:
    config = tmp_path / "lbha.toml"
    config.write_text(CONFIG)
    render = [sys.executable, "-m", "lbha", "render", "-c", config, "--node", "a", "--out", tmp_path]
    subprocess.run(render, check=True, capture_output=True)
    assert told(tmp_path / "lbha.nft", 16443, network, vip, source) == "ECONNRESET"


@VIPS
def test_where_others_track_connections(network: list[str], tmp_path: Path, vip: str, source: str) -> None:
    """As kube-proxy's rules do on every node."""
    rules = tmp_path / "tracking.nft"
    rules.write_text(
        "table inet own { chain in { type filter hook input priority 0; ct state new accept\n }\n }\n"
    )
    assert told(rules, 6443, network, vip, source) == "ECONNRESET"
