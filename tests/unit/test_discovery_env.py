"""etcd-env:FILE: the file as it is found in the wild."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbha import config
from lbha.discovery import discover
from lbha.discovery.etcd_env import parse_env
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Pool

SYSTEMD = """\
\ufeff# etcd's environment, as packages install it
; another kind of comment, ETCD_INITIAL_CLUSTER=nonsense
#[Member]
ETCD_NAME=etcd1
ETCD_DATA_DIR="/var/lib/etcd/my \\"data\\""
ETCD_LISTEN_CLIENT_URLS="https://10.0.0.11:2379,https://127.0.0.1:2379"

  ETCD_ADVERTISE_CLIENT_URLS = "https://10.0.0.11:2379"   # what clients use
ETCD_INITIAL_CLUSTER='etcd1=https://10.0.0.11:2380,etcd2=https://10.0.0.12:2380,etcd3=https://10.0.0.21:2380'
ETCD_INITIAL_CLUSTER_STATE=new
"""

SHELL = """\
#!/bin/sh
set -a
export ETCD_NAME=etcd1
export ETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.11:2379;
ETCD_INITIAL_CLUSTER=old=http://10.9.9.9:2380
export ETCD_INITIAL_CLUSTER="etcd1=https://10.0.0.11:2380,\\
  etcd2=https://10.0.0.12:2380, \\
  etcd3=https://10.0.0.21:2380,"
"""


def cluster(file: Path, extra: str = "") -> Cluster:
    return config.parse(
        f"""
        [cluster]
        name = "env"
        vip = "10.0.0.100"
        [nodes]
        cp1 = "10.0.0.11"
        cp2 = "10.0.0.12"
        [services.etcd]
        kind = "etcd"
        backends = "etcd-env:{file}"
        {extra}
        """
    )


def pool(directory: Path, text: str, extra: str = "") -> Pool:
    file = directory / "etcd.env"
    file.write_bytes(text.encode())
    return discover(cluster(file, extra), None)["etcd"]


def servers(pool: Pool) -> list[tuple[str, str]]:
    return [(backend.name, str(backend.endpoint)) for backend in pool.backends]


@pytest.mark.parametrize("text", [SYSTEMD, SHELL, SYSTEMD.replace("\n", "\r\n"), SHELL.replace("\n", "\r\n")])
def test_files_as_found_in_the_wild(tmp_path: Path, text: str) -> None:
    found = pool(tmp_path, text)
    assert servers(found) == [
        ("cp1", "10.0.0.11:2379"),
        ("cp2", "10.0.0.12:2379"),
        ("10.0.0.21:2379", "10.0.0.21:2379"),
    ]
    assert (found.age, found.error) == (0.0, None)


def test_the_client_port_comes_from_the_advertised_url_else_from_target_port(tmp_path: Path) -> None:
    peers = "ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380,b=http://10.0.0.12:2380\n"
    advertised = "ETCD_ADVERTISE_CLIENT_URLS=http://10.0.0.11:4001\n"
    assert servers(pool(tmp_path, peers + advertised)) == [
        ("cp1", "10.0.0.11:4001"),
        ("cp2", "10.0.0.12:4001"),
    ]
    assert servers(pool(tmp_path, "\ufeff" + peers)) == [("cp1", "10.0.0.11:2379"), ("cp2", "10.0.0.12:2379")]
    assert servers(pool(tmp_path, peers, "port = 2379\ntarget_port = 12379")) == [
        ("cp1", "10.0.0.11:12379"),
        ("cp2", "10.0.0.12:12379"),
    ]


def test_a_member_is_reached_where_it_says_not_where_its_peers_reach_it(tmp_path: Path) -> None:
    text = """
    ETCD_NAME=a
    ETCD_INITIAL_CLUSTER=a=http://192.168.0.1:2380,b=http://10.0.0.12:2380
    ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379,http://10.0.0.11:2379
    """
    assert servers(pool(tmp_path, text)) == [("cp1", "10.0.0.11:2379"), ("cp2", "10.0.0.12:2379")]


def test_advertising_localhost_alone_leaves_the_peer_address(tmp_path: Path) -> None:
    text = """
    ETCD_NAME=a
    ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380,b=http://10.0.0.12:2380
    ETCD_ADVERTISE_CLIENT_URLS=http://localhost:2379
    """
    assert servers(pool(tmp_path, text)) == [("cp1", "10.0.0.11:2379"), ("cp2", "10.0.0.12:2379")]


def test_the_others_have_the_port_of_the_url_that_is_used_whatever_stands_first(tmp_path: Path) -> None:
    text = """
        ETCD_NAME=a
        ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380,b=http://10.0.0.12:2380
        ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:4001,http://10.0.0.11:12379
    """
    assert servers(pool(tmp_path, text)) == [("cp1", "10.0.0.11:12379"), ("cp2", "10.0.0.12:12379")]


def test_a_nodes_name_needs_no_resolver(tmp_path: Path) -> None:
    text = "ETCD_INITIAL_CLUSTER=a=http://cp1:2380,b=http://CP2:2380"
    assert servers(pool(tmp_path, text)) == [("cp1", "10.0.0.11:2379"), ("cp2", "10.0.0.12:2379")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no ETCD_INITIAL_CLUSTER"),
        ("ETCD_ADVERTISE_CLIENT_URLS=http://10.0.0.11:2379", "no ETCD_INITIAL_CLUSTER"),
        ("ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380\nETCD_NAME='a", "line 2: a quote is not closed"),
        ("ETCD_INITIAL_CLUSTER=http", "not NAME=URL"),
        ("ETCD_INITIAL_CLUSTER=a=http://${IP}:2380", "is not a URL"),
        ("ETCD_INITIAL_CLUSTER=a=http://10.0.0.11", "is not a URL"),
        ("ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:99999", "is not a URL"),
        ("ETCD_INITIAL_CLUSTER=a=unix://10.0.0.11:2380", "is not a URL"),
        ('ETCD_INITIAL_CLUSTER="a=http://10.0.0.11\n:2380"', "is not a URL"),
        ("ETCD_INITIAL_CLUSTER=a=http://127.0.0.1:2380", "loopback"),
        ("ETCD_INITIAL_CLUSTER=a=http://0.0.0.0:2380", "unspecified"),
        ("ETCD_INITIAL_CLUSTER=a=http://10.0.0.100:2380", "is the VIP"),
        ("ETCD_INITIAL_CLUSTER=a=http://224.0.0.1:2380", "not a unicast"),
        ("ETCD_INITIAL_CLUSTER=a=http://[fe80::1]:2380", "link-local"),
        ("ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380#b=http://10.0.0.12:2380", "is not a URL"),
        ("ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380,b=http://a..b:2380", "does not resolve"),
        (
            "ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380,b=http://10.0.0.11:2380",
            "members a and b are both at 10.0.0.11:2379",
        ),
    ],
)
def test_an_unusable_file_is_one_line_and_no_smaller_pool(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DiscoveryError) as raised:
        pool(tmp_path, text)
    assert told in str(raised.value)
    assert "services.etcd.backends" in str(raised.value)
    assert str(raised.value).isprintable()


def test_what_is_not_a_readable_file_is_told(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    for file, told in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        (fifo, "not a regular file"),
    ):
        with pytest.raises(DiscoveryError, match=told):
            discover(cluster(file), None)


def quoted(value: str, style: int) -> str:
    """`value` as one word of the shell, in one of the ways people write it."""
    if style == 0:
        return shlex.quote(value)
    if style == 1:
        return '"' + "".join(f"\\{char}" if char in '"\\$`' else char for char in value) + '"'
    return "".join(char if char.isalnum() or char in "/:,=._-" else f"\\{char}" for char in value)


VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
KEYS = st.from_regex(r"ETCD_[A-Z_]{1,6}", fullmatch=True)
ASSIGNMENTS = st.lists(st.tuples(KEYS, VALUES, st.integers(0, 2), st.sampled_from(["", "export ", "  "])))


def written(assignments: list[tuple[str, str, int, str]]) -> str:
    lines = ["# a comment with ' and \" and = in it"]
    for key, value, style, prefix in assignments:
        lines += [f"{prefix}{key}={quoted(value, style)} # why", ""]
    return "\n".join(lines)


@given(ASSIGNMENTS, st.sampled_from(["\n", "\r\n"]))
def test_every_way_of_quoting_gives_the_value_back(
    assignments: list[tuple[str, str, int, str]], newline: str
) -> None:
    text = written(assignments).replace("\n", newline)
    assert parse_env(text) == {key: value for key, value, _, _ in assignments}


@settings(max_examples=40, deadline=None)
@given(ASSIGNMENTS)
def test_a_real_shell_reads_the_same(assignments: list[tuple[str, str, int, str]]) -> None:
    text = written(assignments)
    shell = subprocess.run(
        ["sh", "-c", 'set -a; eval "$1"; exec env -0', "sh", text], env={}, capture_output=True, check=True
    )
    variables = dict(entry.split("=", 1) for entry in shell.stdout.decode().split("\0") if entry)
    assert parse_env(text) == {key: value for key, value in variables.items() if key.startswith("ETCD_")}


@given(st.text(st.sampled_from("ETCD_=\"'\\\n\r# ;ax$\t\0é"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values = parse_env(text)
    except DiscoveryError as error:
        assert "quote" in str(error)
    else:
        assert all(key.isidentifier() for key in values)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, len(SYSTEMD) - 1), char=st.sampled_from("\0\n\"'=,:/[]%\\\x1b#?"))
def test_a_damaged_file_is_one_line_or_a_whole_pool(
    tmp_path_factory: pytest.TempPathFactory, position: int, char: str
) -> None:
    text = SYSTEMD[:position] + char + SYSTEMD[position + 1 :]
    try:
        found = pool(tmp_path_factory.getbasetemp(), text)
    except DiscoveryError as error:
        assert str(error).isprintable()
    else:
        assert len(found.backends) == 3
