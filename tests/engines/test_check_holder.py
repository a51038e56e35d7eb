"""`lbha check holder` in a network namespace: an address is on this host or it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"lbha-check-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def host(namespace: str) -> str:
    """A host with an eth0 and default routes for both families."""
    for command in (
        "link set lo up",
        "link add eth0 type veth peer name peer0",
        "addr add 10.0.0.11/24 dev eth0",
        "addr add fd00::11/64 dev eth0 nodad",
        "link set eth0 up",
        "link set peer0 up",
        "route add default via 10.0.0.1",
        "-6 route add default via fd00::1",
    ):
        ip(namespace, command)
    return namespace


def ip(namespace: str, command: str) -> None:
    subprocess.run(["ip", "-n", namespace, *command.split()], check=True)


def sysctl(namespace: str, setting: str) -> None:
    subprocess.run(["ip", "netns", "exec", namespace, "sysctl", "-qw", setting], check=True)


def holder(namespace: str, vip: str) -> tuple[int, str]:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "lbha", "check", "holder", "--vip", vip],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == "" or done.returncode == 2
    return done.returncode, done.stdout


CASES = {"10.0.0.100": "10.0.0.100/32", "fd00::100": "fd00::100/128 nodad preferred_lft 0"}
"""VIPs, and how keepalived adds them."""


@pytest.mark.parametrize("nonlocal_bind", [0, 1])
@pytest.mark.parametrize("vip", CASES)
def test_holder_while_the_address_is_here(host: str, vip: str, nonlocal_bind: int) -> None:
    sysctl(host, f"net.ipv4.ip_nonlocal_bind={nonlocal_bind}")
    sysctl(host, f"net.ipv6.ip_nonlocal_bind={nonlocal_bind}")
    absent = (1, f"bad: holder: {vip} is not on this host\n")
    assert holder(host, vip) == absent
    ip(host, f"addr add {CASES[vip]} dev eth0")
    assert holder(host, vip) == (0, f"ok: this host holds {vip}\n")
    ip(host, f"addr del {CASES[vip].split()[0]} dev eth0")
    assert holder(host, vip) == absent


def test_ipv6_is_compared_by_value(host: str) -> None:
    ip(host, "addr add fd00::100/128 dev eth0 nodad preferred_lft 0")
    assert holder(host, "FD00:0:0::0100")[0] == 0


@pytest.mark.parametrize("vip", CASES)
def test_the_address_on_loopback_counts(host: str, vip: str) -> None:
    ip(host, f"addr add {CASES[vip]} dev lo")
    assert holder(host, vip)[0] == 0


@pytest.mark.parametrize("vip", CASES)
def test_no_route_at_all(namespace: str, vip: str) -> None:
    code, reason = holder(namespace, vip)
    assert code == 1
    assert "is not on this host (" in reason


@pytest.mark.parametrize("vip", ["0.0.0.0", "::", "10.0.0.255", "255.255.255.255", "224.0.0.18", "fe80::1"])
def test_no_host_address_is_held(host: str, vip: str) -> None:
    assert holder(host, vip)[0] == 1


@pytest.mark.parametrize("vip", ["cp1", "10.0.0.100/32", "10.0.0", "fe80::1%eth0"])
def test_no_address_is_misuse(namespace: str, vip: str) -> None:
    assert holder(namespace, vip) == (2, "")
