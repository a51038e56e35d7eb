"""Whatever stands in the file: a sound Cluster, or one ConfigError of one line. Nothing else, ever."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config_documents import sound

from lbha.config import load, parse
from lbha.errors import ConfigError

FULL = """\
[cluster]
name = "prod"
vips = ["10.0.0.100", "fd00::100"]
interface = "eth0"
virtual_router_id = 51
[nodes]
cp1 = ["10.0.0.11", "fd00::11"]
cp2 = ["10.0.0.12", "fd00::12"]
[services.apiserver]
kind = "kube-apiserver"
backends = "kubernetes"
token_file = "/t"
tls = { ca = "/pki/ca.crt", cert = "/pki/c.crt", key = "/pki/c.key" }
[services.etcd]
kind = "etcd"
port = 12379
target_port = 2379
backends = "etcd-env:/etc/etcd.env"
check = { interval = 1.5, fast_interval = 0.1, timeout = 2, rise = 1, fall = 3 }
[services.registry]
kind = "tcp"
port = 5000
balance = "source"
backends = ["10.0.0.21", "10.0.0.22:5001", "[fd00::21]:5000"]
[failover]
profile = "fast"
advert_interval = 0.2
failback = true
[health]
interval = 2
[metrics]
address = "[::1]:9100"
[paths]
lbha = "/opt/lbha/bin/lbha"
state_dir = "/var/lib/lbha"
[templates]
directory = "/etc/lbha/templates"
"""

TOKENS = re.findall(r'"[^"]*"|[\w.-]+|\s+|.', FULL)

NASTY = [
    *(
        '"',
        "'",
        '"""',
        "'''",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ",",
        "#",
        "\\",
        ".",
        "\n",
        "\r",
        "\t",
        "\0",
        "\ufeff",
    ),
    *(
        "nan",
        "-inf",
        "true",
        "-1",
        "0",
        "1e400",
        "0x" + "f" * 5000,
        "9" * 5000,
        "1_000",
        "1979-05-27",
        "07:32:00",
    ),
    *("[]", "{}", "[[1]]", '""', '"\\u0000"', '"\\u202e"', '"\u202e"', '"\\n"', '"a b"', '"#"', '"$x"', '"{"'),
    *('"/"', '"/a,b"', '"/.."', '"::"', '"0.0.0.0"', '"10.0.0.11"', '"10.0.0.100:6443"', '"127.0.0.1:9100"'),
    *("cluster", "nodes", "services", "etcd", "vip", "kind", '"haproxy"', '"tcp"', '"nodes"', '"dns-srv:a"'),
    *(
        "a.b.c",
        '"é"',
        '"\U000e0001"',
        '"fe80::1%eth0"',
        '"１"',
        "unknown",
        "[services.etcd]",
        "[a.b]\n",
        "x = 1\n",
    ),
]

_FILE = Path(tempfile.gettempdir()) / f"lbha-mutant-{os.getpid()}.toml"


@pytest.fixture(scope="module", autouse=True)
def remove_file() -> Iterator[None]:
    yield
    _FILE.unlink(missing_ok=True)


def judged(data: bytes) -> None:
    """The file of these bytes is either sound, or refused in one line that names it."""
    _FILE.write_bytes(data)
    try:
        cluster = load(_FILE)
    except ConfigError as error:
        told = str(error)
        assert told.isprintable(), told
        assert told.startswith(f"{_FILE}: "), told
        assert len(told) < 700, told
        assert "; " in told, told
    else:
        sound(cluster)


def test_the_unmutated_file_is_sound() -> None:
    cluster = parse(FULL)
    assert {service.name for service in cluster.services} == {"apiserver", "etcd", "registry"}
    sound(cluster)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["delete", "replace", "insert", "double", "move"]),
            st.integers(0, len(TOKENS) - 1),
            st.integers(0, len(TOKENS) - 1),
            st.sampled_from(NASTY),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=600, deadline=None)
def test_any_mutation_of_words(mutations: list[tuple[str, int, int, str]]) -> None:
    tokens = list(TOKENS)
    for kind, at, other, nasty in mutations:
        at, other = at % len(tokens), other % len(tokens)
        if kind == "delete":
            tokens[at] = ""
        elif kind == "replace":
            tokens[at] = nasty
        elif kind == "insert":
            tokens.insert(at, nasty)
        elif kind == "double":
            tokens.insert(other, tokens[at])
        else:
            tokens[at], tokens[other] = tokens[other], tokens[at]
    judged("".join(tokens).encode("utf-8"))


@given(
    st.lists(
        st.tuples(st.integers(0, len(FULL)), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=4
    )
)
@settings(max_examples=400, deadline=None)
def test_any_mutation_of_bytes(mutations: list[tuple[int, int, bytes]]) -> None:
    data = FULL.encode()
    for at, length, new in mutations:
        data = data[:at] + new + data[at + length :]
    judged(data)


@given(st.sampled_from([token for token in TOKENS if token.startswith('"')]), st.text(max_size=12))
@settings(max_examples=400, deadline=None)
def test_any_text_in_place_of_a_value(token: str, text: str) -> None:
    quoted = tomli_w.dumps({"x": text}).removeprefix("x = ").rstrip("\n")
    judged(FULL.replace(token, quoted, 1).encode("utf-8", "surrogatepass"))
