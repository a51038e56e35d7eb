"""A host finds itself in the file by its own addresses: real network namespaces, IPv4 and IPv6."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

QUESTION = """
import json, sys
from lbha.config import parse
from lbha.errors import ConfigError
from lbha.host import find_node, interface_of
cluster = parse(sys.stdin.read())
try:
    node = find_node(cluster)
    answer = {"node": node.name}
    answer["interfaces"] = {each.name: interface_of(cluster, each) for each in cluster.nodes}
except ConfigError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
"""

Answer = dict[str, object]
Host = Callable[..., Answer]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A host with 10.0.0.11 on eth0, fd00::11 on eth1.7, and 10.9.0.1 towards 10.9.0.2 on ptp0."""
    name = f"lbha-host-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "link add eth1.7 type veth peer name peer1",
            "link add ptp0 type veth peer name peer2",
            'link add a"{b type veth peer name peer3',
            "addr add 10.0.0.11/24 dev eth0",
            "addr add 10.0.0.12/32 dev eth0",
            "addr add fd00::11/64 dev eth1.7 nodad",
            "addr add 10.9.0.1 peer 10.9.0.2/32 dev ptp0",
            'addr add 10.8.0.1/24 dev a"{b',
            "link set eth0 up",
            "link set eth1.7 up",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def host(namespace: str) -> Host:
    """Asks, on that host, which node of the file it is."""

    def ask(vip: str, more: str = "", /, **nodes: str) -> Answer:
        listed = "\n".join(f'{name} = "{address}"' for name, address in nodes.items())
        text = (
            f'[cluster]\nname = "x"\nvip = "{vip}"\n{more}\n[nodes]\n{listed}\n[services.etcd]\nkind = "etcd"\n'
        )
        environment = {key: value for key, value in os.environ.items() if key != "LBHA_NODE"}
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", QUESTION],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        answer: Answer = json.loads(done.stdout)
        return answer

    return ask


def test_by_an_ipv4_address(host: Host) -> None:
    answer = host("10.0.0.100", cp1="10.0.0.11", cp2="10.0.0.22")
    assert answer == {"node": "cp1", "interfaces": {"cp1": "eth0", "cp2": None}}


def test_by_an_ipv6_address_however_it_is_written(host: Host) -> None:
    answer = host("fd00::100", cp1="fd00::22", cp2="FD00:0:0::0011")
    assert answer == {"node": "cp2", "interfaces": {"cp1": None, "cp2": "eth1.7"}}


def test_the_near_end_of_a_point_to_point_link_is_ours_and_the_far_end_is_not(host: Host) -> None:
    answer = host("10.9.0.100", near="10.9.0.1", far="10.9.0.2")
    assert answer == {"node": "near", "interfaces": {"near": "ptp0", "far": None}}


def test_the_interface_of_the_file_goes_first_but_only_on_the_own_host(host: Host) -> None:
    answer = host("10.0.0.100", 'interface = "bond0"', cp1="10.0.0.11", cp2="10.0.0.22")
    assert answer == {"node": "cp1", "interfaces": {"cp1": "bond0", "cp2": None}}


def test_two_nodes_on_one_host(host: Host) -> None:
    answer = host("10.0.0.100", cp1="10.0.0.11", cp2="10.0.0.12", cp3="10.0.0.13")
    assert answer == {
        "error": "this host has the addresses of cp1 and cp2; say which one it is with --node or LBHA_NODE"
    }


def test_no_node_of_the_file(host: Host) -> None:
    answer = host("10.0.0.100", cp2="10.0.0.22", cp3="10.0.0.23")
    assert answer == {
        "error": "no address of this host is in [nodes] (cp2, cp3); add the node, "
        "or say which one it is with --node or LBHA_NODE"
    }


def test_an_interface_whose_name_could_break_a_line(host: Host) -> None:
    """Linux lets an interface be called almost anything; keepalived.conf does not."""
    answer = host("10.8.0.100", cp1="10.8.0.1")
    assert answer == {
        "error": 'the interface "a\\"{b" of cp1 has a name that cannot stand in a configuration line; '
        "rename it to letters, digits and . _ -, or set [cluster] interface to another"
    }


def test_render_finds_node_and_interface_by_itself(namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "lbha.toml"
    file.write_text(
        '[cluster]\nname = "x"\nvips = ["10.0.0.100", "fd00::100"]\n'
        '[nodes]\ncp1 = ["10.0.0.11", "fd00::11"]\ncp2 = ["10.0.0.22", "fd00::22"]\n'
        f'[services.etcd]\nkind = "etcd"\n[paths]\nstate_dir = "{tmp_path}/state"\n'
    )
    program = Path(sys.executable).parent / "lbha"
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, str(program), "render", "-c", str(file), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "keepalived.conf").read_text()
    assert "unicast_src_ip 10.0.0.11\n" in text
    assert "interface eth0\n" in text
