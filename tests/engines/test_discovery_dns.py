"""dns-srv, against a stand-in for a name server; host names, by the system's resolver in namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from lbha import config
from lbha.discovery import SOURCES, discover
from lbha.discovery.dns_srv import DnsSrv
from lbha.errors import DiscoveryError
from lbha.model import Pool

SUBNET = f"127.{os.getpid() >> 8 & 127 | 64}.{os.getpid() & 255}"
LIVE, FROZEN = f"{SUBNET}.1", f"{SUBNET}.2"


def names(pool: Pool) -> list[str]:
    return [backend.name for backend in pool.backends]


NAME = "_etcd-client._tcp.example.com."


class NameServer:
    """A stand-in for a name server on UDP: what is not in `zone` does not exist."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.port: int = self.socket.getsockname()[1]
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.silent: set[str] = set()

    def serve(self) -> None:
        while True:
            data, client = self.socket.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            question = query.question[0]
            name, kind = str(question.name), question.rdtype.name
            if name in self.silent:
                continue
            response = dns.message.make_response(query)
            response.flags |= dns.flags.AA
            if records := self.zone.get((name, kind)):
                response.answer.append(dns.rrset.from_text(name, 1, "IN", kind, *records))
            elif not any(known == name for known, _ in self.zone):
                response.set_rcode(dns.rcode.NXDOMAIN)
            self.socket.sendto(response.to_wire(), client)


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    server = NameServer(LIVE)
    server.zone = {
        (NAME, "SRV"): ["0 10 2379 a.example.com.", "20 0 2380 b.example.com."],
        ("a.example.com.", "A"): ["10.0.0.21"],
        ("a.example.com.", "AAAA"): ["fd00::21"],
        ("b.example.com.", "A"): ["10.0.0.11"],
    }
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", (LIVE, server.port))
        thread.join()
        server.socket.close()


def ask_dns(
    server: NameServer,
    memory: Path | None,
    vips: str = '["10.0.0.100"]',
    first: tuple[str, ...] = (),
    timeout: float = 3.0,
) -> Pool:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [*first, LIVE]
    resolver.port = server.port
    node = '"10.0.0.11"' if ":" not in vips else '["10.0.0.11", "fd00::11"]'
    cluster = config.parse(
        f"""
        [cluster]
        name = "dns"
        vips = {vips}
        [nodes]
        cp1 = {node}
        [services.etcd]
        kind = "etcd"
        backends = "dns-srv:{NAME.rstrip(".")}"
        """
    )
    return discover(cluster, memory, timeout=timeout, sources={**SOURCES, "dns-srv": DnsSrv(resolver)})["etcd"]


def test_all_targets_whatever_their_priority_in_the_vips_family(name_server: NameServer) -> None:
    pool = ask_dns(name_server, None)
    assert [(each.name, str(each.endpoint)) for each in pool.backends] == [
        ("cp1", "10.0.0.11:2380"),
        ("10.0.0.21:2379", "10.0.0.21:2379"),
    ]


def test_a_target_of_two_families_is_one_server(name_server: NameServer) -> None:
    both = ask_dns(name_server, None, vips='["fd00::100", "10.0.0.100"]')
    assert names(both) == ["cp1", "fd00::21:2379"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({("b.example.com.", "A"): None}, "does not exist"),
        ({("b.example.com.", "A"): ["127.0.0.1"]}, "loopback"),
        ({("b.example.com.", "A"): ["10.0.0.100"]}, "is the VIP"),
        ({("b.example.com.", "A"): None, ("b.example.com.", "AAAA"): ["fd00::1"]}, "no address"),
        ({(NAME, "SRV"): ["0 0 0 a.example.com."]}, "port 0"),
        ({(NAME, "SRV"): ["0 0 0 ."]}, "not available"),
        ({(NAME, "SRV"): None}, "does not exist"),
        ({(NAME, "SRV"): None, (NAME, "TXT"): ["x"]}, "does not contain an answer"),
    ],
)
def test_one_bad_target_leaves_the_last_good_answer(
    name_server: NameServer, tmp_path: Path, change: dict[tuple[str, str], list[str] | None], told: str
) -> None:
    good = ask_dns(name_server, tmp_path)
    for key, records in change.items():
        name_server.zone.pop(key, None)
        if records:
            name_server.zone[key] = records
    pool = ask_dns(name_server, tmp_path)
    assert pool.backends == good.backends
    assert told in (pool.error or "")
    with pytest.raises(DiscoveryError, match="no earlier answer"):
        ask_dns(name_server, None)


def test_a_silent_name_server_costs_the_timeout_and_none_while_another_answers(
    name_server: NameServer, tmp_path: Path
) -> None:
    with contextlib.closing(NameServer(FROZEN, name_server.port).socket):
        assert ask_dns(name_server, tmp_path, first=(FROZEN,), timeout=2.0).error is None
    name_server.silent.add("b.example.com.")
    start = time.monotonic()
    pool = ask_dns(name_server, tmp_path, timeout=1.0)
    assert 0.5 < time.monotonic() - start < 2.0
    assert len(pool.backends) == 2
    assert "target b.example.com." in (pool.error or "")


SCRIPT = """
import sys, time
from pathlib import Path
from lbha import config
from lbha.discovery import discover
from lbha.errors import DiscoveryError
import socket
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
text = '''
[cluster]
name = "hosts"
vip = "10.0.0.100"
[nodes]
cp1 = "10.0.0.11"
[services.etcd]
kind = "etcd"
backends = "etcd-env:%s"
'''
for host, more in (
    ("listed.example", ""),
    ("cp1", ""),
    ("own.example", ""),
    ("silent.example", "a=http://10.0.0.33:2380"),
    ("silent.example", ""),
):
    file = Path(sys.argv[1]) / "etcd.env"
    file.write_text(f"ETCD_INITIAL_CLUSTER=a=http://{host}:2380,b=http://10.0.0.31:2380,{more}")
    start = time.monotonic()
    try:
        pool = discover(config.parse(text % file), None, timeout=1.0)["etcd"]
        print(host, *(each.endpoint for each in pool.backends))
    except DiscoveryError as error:
        print(host, error)
    assert time.monotonic() - start < 2.0
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_host_names_by_the_system_and_never_longer_than_the_timeout(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(
        "127.0.0.1 localhost\n127.0.1.1 cp1 own.example\n10.0.0.32 listed.example\n"
    )
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    commands = f"""
        ip link set lo up
        mount --bind {tmp_path}/hosts /etc/hosts
        mount --bind {tmp_path}/resolv.conf /etc/resolv.conf
        exec {sys.executable} {tmp_path}/script.py {tmp_path}
    """
    start = time.monotonic()
    result = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-ec", commands], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    listed, node, own, literal, silent = result.stdout.splitlines()
    assert listed == "listed.example 10.0.0.31:2379 10.0.0.32:2379"
    assert node == "cp1 10.0.0.11:2379 10.0.0.31:2379"  # although /etc/hosts says 127.0.1.1
    assert "127.0.1.1 is a loopback address" in own
    assert literal == "silent.example 10.0.0.31:2379 10.0.0.33:2379"  # a literal needs no name
    assert "no answer in 1 s" in silent
    assert time.monotonic() - start < 5.0  # glibc alone would have waited 10 s, and the exit for its thread
