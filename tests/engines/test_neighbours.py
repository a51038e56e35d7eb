"""What the kernel does with packets for a VIP whose next holder has not answered yet: two real namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

VIPS = ("10.0.0.100", "fd00::100")
BURST = 1000

SEND = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.setsockopt(socket.SOL_SOCKET, 32, 1 << 23)  # SO_SNDBUFFORCE: what waits is charged to the sender
    for _ in range({BURST}):
        out.sendto(b"SYN", ("10.0.0.100", 6443))
"""

COUNT = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
    heard.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
    heard.bind(("", 6443))
    print("listening", flush=True)
    heard.settimeout(10)
    count = 0
    try:
        while True:
            heard.recv(16)
            count += 1
            heard.settimeout(1)
    except TimeoutError:
        print(count)
"""


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two namespaces on one cable, eth0 at each end."""
    one, other = (f"lbha-neigh-{os.getpid()}-{each}" for each in "ab")
    try:
        for name in (one, other):
            subprocess.run(["ip", "netns", "add", name], check=True)
        cable = ["ip", "-n", one, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", other]
        subprocess.run(cable, check=True)
        for name, last in ((one, 11), (other, 12)):
            subprocess.run(["ip", "-n", name, "addr", "add", f"10.0.0.{last}/24", "dev", "eth0"], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "eth0", "up"], check=True)
        yield one, other
    finally:
        for name in (one, other):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def run(netns: str, code: str) -> None:
    subprocess.run(["ip", "netns", "exec", netns, sys.executable, "-c", code], check=True)


def prepare(netns: str) -> None:
    run(netns, f"from lbha.neighbours import prepare; prepare({VIPS})")


def arrived(nodes: tuple[str, str]) -> int:
    """How many of a burst towards the VIP reach the node that gets it a moment later."""
    one, other = nodes
    argv = ["ip", "netns", "exec", other, sys.executable, "-c", COUNT]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as counting:
        assert counting.stdout is not None
        assert counting.stdout.readline() == "listening\n"
        run(one, SEND)
        subprocess.run(["ip", "-n", other, "addr", "add", f"{VIPS[0]}/32", "dev", "eth0"], check=True)
        return int(counting.stdout.read())


def hold(netns: str, *, held: bool) -> None:
    for vip, bits in zip(VIPS, (32, 128), strict=True):
        verb = "add" if held else "del"
        argv = ["ip", "-n", netns, "addr", verb, f"{vip}/{bits}", "dev", "eth0", *["nodad"] * held]
        subprocess.run(argv, check=True)


def test_a_burst_waits_for_the_next_holder(nodes: tuple[str, str]) -> None:
    hold(nodes[0], held=True)
    prepare(nodes[0])
    hold(nodes[0], held=False)
    assert arrived(nodes) == BURST


def test_linux_alone_keeps_a_part(nodes: tuple[str, str]) -> None:
    """What the above is worth; when this fails, lbha.neighbours can go."""
    assert arrived(nodes) < BURST


def test_a_former_holder_is_forgotten(nodes: tuple[str, str]) -> None:
    one = nodes[0]
    for vip in VIPS:
        put = ["ip", "-n", one, "neigh", "replace", vip, "lladdr", "02:00:00:00:00:77", "dev", "eth0"]
        subprocess.run(put, check=True)
    kept = ["ip", "-n", one, "neigh", "replace", "10.0.0.13", "lladdr", "02:00:00:00:00:13", "dev", "eth0"]
    subprocess.run(kept, check=True)
    prepare(one)
    left = subprocess.run(["ip", "-n", one, "neigh"], check=True, capture_output=True, text=True).stdout
    assert "10.0.0.13 " in left
    assert not [vip for vip in VIPS if vip in left]


def test_both_families_have_the_room_and_other_interfaces_keep_theirs(nodes: tuple[str, str]) -> None:
    one = nodes[0]
    subprocess.run(["ip", "-n", one, "link", "add", "eth1", "type", "veth", "peer", "name", "far1"], check=True)
    hold(one, held=True)
    prepare(one)
    read = "cat /proc/sys/net/ipv[46]/neigh/eth[01]/unres_qlen_bytes"
    got = subprocess.run(
        ["ip", "netns", "exec", one, "sh", "-c", read], check=True, capture_output=True, text=True
    ).stdout.split()
    assert got[0] == got[2] == str(2 << 20)
    assert got[1] == got[3] != got[0]


def test_without_the_vip_nothing_is_set(nodes: tuple[str, str]) -> None:
    prepare(nodes[0])
    read = ["ip", "netns", "exec", nodes[0], "cat", "/proc/sys/net/ipv4/neigh/eth0/unres_qlen_bytes"]
    assert subprocess.run(read, check=True, capture_output=True, text=True).stdout != f"{2 << 20}\n"
