"""A tickle makes a client ask, and a kernel that does not know its connection resets it; IPv4 and IPv6."""

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
import errno, json, socket, sys, time
from lbha import tickle
from lbha.connections import connection
from lbha.model import Endpoint
from lbha.pause import While
vip, source = sys.argv[1:]
family = socket.AF_INET6 if ":" in vip else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((vip, 6443)); listener.listen(100)
def connect():
    client = socket.socket(family); client.bind((source, 0)); client.connect((vip, 6443))
    return client, listener.accept()[0]
def forget(server):
    server.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR: closed without a word, as after a power cut
    server.close()
def key(client): return connection(Endpoint(vip, 6443), Endpoint(*client.getsockname()[:2]))
def state(client):
    client.settimeout(0.2)
    try: return "ended" if client.recv(1) == b"" else "data"
    except TimeoutError: return "open"
    except OSError as error: return errno.errorcode[error.errno]
held = While(lambda: True)
"""


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"lbha-tickle-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        for address in ("10.9.0.1/32", "10.9.0.100/32", "fd09::1/128", "fd09::100/128"):
            subprocess.run(["ip", "-n", name, "addr", "add", address, "dev", "lo", "nodad"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def run(namespace: str, vip: str, source: str, code: str) -> Any:
    argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", _COMMON + code, vip, source]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout)


BOTH = pytest.mark.parametrize(("vip", "source"), [("10.9.0.100", "10.9.0.1"), ("fd09::100", "fd09::1")])


@BOTH
def test_dead_connections_are_reset_and_a_living_one_is_not_hurt(namespace: str, vip: str, source: str) -> None:
    dead, untold, living, sent = run(
        namespace,
        vip,
        source,
        """
pairs = [connect() for _ in range(21)]
for client, server in pairs[:20]: forget(server)
living = pairs[20][0]
sent = tickle.tell([key(c) for c, _ in pairs[:10]] + [key(living)], [vip], 10_000, held)
print(json.dumps([[state(c) for c, _ in pairs[:10]], [state(c) for c, _ in pairs[10:20]], state(living), sent]))
""",
    )
    assert dead == ["ECONNRESET"] * 10
    assert untold == ["open"] * 10, "they were not known"
    assert living == "open"
    assert sent == 33


@BOTH
@pytest.mark.parametrize("state", ["fin-wait-2", "close-wait"])
def test_a_leftover_of_an_earlier_time_does_not_answer_for_it(
    namespace: str, vip: str, source: str, state: str
) -> None:
    """The client's port was used before, and that time's socket is still half closed here."""
    code = f"""
from lbha import inet_diag, leftovers
from lbha.config import parse
cluster = parse('[cluster]\\nname = "x"\\nvip = "' + vip + '"\\n[nodes]\\na = "' + source + '"\\n'
    '[services.apiserver]\\nkind = "kube-apiserver"\\n')
c, s = connect(); other, its = connect()
if {state!r} == "fin-wait-2": s.shutdown(1)
else: c.shutdown(1)
its.shutdown(1)
at = [Endpoint(vip, 6443)]
while len(inet_diag.not_established(at)) < 2: time.sleep(0.01)
before = key(c) in inet_diag.not_established(at)
done = leftovers.clear(cluster, [key(c)])
after = inet_diag.not_established(at)
swept = leftovers.clear_all(cluster) == len(after), len(inet_diag.not_established(at))
print(json.dumps([before, done, key(c) in after, key(other) in after, swept]))
"""
    told = run(namespace, vip, source, code)
    assert told[:4] == [True, 1, False, True], "and no other is touched"
    assert told[4] == [True, 0], "all of them, where the VIP is away"


@BOTH
def test_also_where_nobody_listens(namespace: str, vip: str, source: str) -> None:
    code = "c, s = connect(); forget(s); listener.close()\n"
    code += "tickle.tell([key(c)], [vip], 1000, held); print(json.dumps(state(c)))"
    assert run(namespace, vip, source, code) == "ECONNRESET"


@BOTH
def test_nothing_leaves_without_the_vip(namespace: str, vip: str, source: str) -> None:
    code = """
c, s = connect(); forget(s)
away = tickle.tell([key(c)], [vip], 1000, While(lambda: False))
try: tickle.tell([key(c)], ["fd09::99" if ":" in vip else "10.9.0.99"], 1000, held); said = "sent"
except OSError as error: said = errno.errorcode[error.errno]
print(json.dumps([away, said, state(c)]))
"""
    assert run(namespace, vip, source, code) == [0, "EADDRNOTAVAIL", "open"]
