"""Connections as the real kernel tells them, IPv4 and IPv6, in a namespace of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

_COMMON = """
import errno, json, socket, sys
from lbha import inet_diag
from lbha.connections import connection, ends
from lbha.model import Endpoint
def listen(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port)); s.listen(100); return s
kept = []
def connect(listener, source):
    c = socket.socket(listener.family); c.bind((source, 0)); c.connect(listener.getsockname()[:2])
    a, _ = listener.accept(); kept.extend((c, a)); return Endpoint(*c.getsockname()[:2])
"""


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"lbha-diag-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        for address in ("10.9.0.1/32", "10.9.0.100/32", "10.9.0.101/32", "fd09::1/128", "fd09::100/128"):
            subprocess.run(["ip", "-n", name, "addr", "add", address, "dev", "lo", "nodad"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def run(namespace: str, code: str) -> Any:
    argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", _COMMON + code]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout)


def test_exactly_the_established_ones_of_the_ends_that_were_asked_for(namespace: str) -> None:
    assert run(
        namespace,
        """
ends_ = [Endpoint("10.9.0.100", 6443), Endpoint("10.9.0.100", 2379), Endpoint("10.9.0.101", 6443),
         Endpoint("fd09::100", 6443), Endpoint("fd09::100", 2379), Endpoint("fd09::100", 7)]
want = set()
for end in ends_[:5]:
    l = listen(end.address, end.port)
    for _ in range(7):
        want.add(connection(end, connect(l, "fd09::1" if ":" in end.address else "10.9.0.1")))
for address, port in (("10.9.0.1", 6443), ("10.9.0.100", 6444), ("fd09::1", 6443)):
    connect(listen(address, port), address)
closed = listen("10.9.0.100", 8000)
connect(closed, "10.9.0.1"); kept[-1].close(); kept[-2].close()
print(json.dumps([inet_diag.established(ends_) == want, len(want), len(inet_diag.established([])),
                  len(inet_diag.established([Endpoint("10.9.0.100", 8000), Endpoint("fd09::100", 7)]))]))
""",
    ) == [True, 35, 0, 0]


def test_more_than_one_datagram_of_them(namespace: str) -> None:
    assert run(
        namespace,
        """
end = Endpoint("10.9.0.100", 6443)
l = listen(end.address, end.port)
want = {connection(end, connect(l, "10.9.0.1")) for _ in range(2000)}
print(json.dumps(inet_diag.established([end]) == want))
""",
    )


def test_these_sockets_are_ended_and_no_other(namespace: str) -> None:
    assert run(
        namespace,
        """
end = Endpoint("fd09::100", 6443)
l = listen(end.address, end.port)
first, second = connect(l, "fd09::100"), connect(l, "fd09::100")
key = connection(first, end)
inet_diag.abort([key])
try: kept[0].recv(1); said = "nothing"
except OSError as error: said = errno.errorcode[error.errno]
kept[2].settimeout(0.1)
try: kept[2].recv(1); other = "ended"
except TimeoutError: other = "open"
l4 = listen("10.9.0.100", 6443)
many = [connect(l4, "10.9.0.1") for _ in range(1500)]
mine = Endpoint("10.9.0.100", 6443)
inet_diag.abort([key, *(connection(mine, each) for each in many[:-1])])  # The first has gone already.
left = inet_diag.established([mine])
print(json.dumps([said, other, left == {connection(mine, many[-1])}]))
""",
    ) == ["ECONNABORTED", "open", True]
