"""The most that the configuration accepts, the real engines accept as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbha.config import parse
from lbha.config.values import PATH_MAX, RUN_DIR_MAX, SOCKET_MAX
from lbha.model import Cluster, Mode, Pool
from lbha.render import render

INTERFACE = "e.h-0_123456789"
"""15 characters, each kind of mark."""

WORDS = ("default", "defaults", "from", "if", "unless", "global", "frontend", "1", "0-0", "lbha", "s" * 32)
"""Names that mean something elsewhere in a configuration, and the longest."""


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"lbha-cfg-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link set lo up",
            f"link add {INTERFACE} type veth peer name peer0",
            f"link set {INTERFACE} up",
            "link set peer0 up",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Below /run: keepalived refuses a script with a parent, such as /tmp, that others may write to."""
    path = Path(tempfile.mkdtemp(prefix="lbha-cfg-", dir="/run"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def long_path(directory: Path, name: str, length: int = PATH_MAX) -> Path:
    """A path of exactly that length, whose parent exists."""
    room = length - len(f"{directory}//{name}")
    parent = directory / ("+" * min(room, 250))
    parent.mkdir(exist_ok=True)
    path = parent / name
    assert len(str(path)) == length
    return path


def accepted(namespace: str, directory: Path, cluster: Cluster, pools: dict[str, Pool]) -> str:
    """The text of keepalived.conf, when haproxy and keepalived have nothing to say about either file."""
    files = render(cluster, cluster.nodes[0], pools, INTERFACE).files
    for name, command in (("haproxy.cfg", "haproxy -c -dW -f"), ("keepalived.conf", "keepalived -t -f")):
        file = directory / name
        file.write_text(files[name])
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command.split(), str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "WARNING" not in (done.stdout + done.stderr).upper()
    return files["keepalived.conf"]


def programs(lbha: Path) -> Path:
    """An `lbha` there, and its `lbha-track` beside it, that keepalived finds fit to run."""
    for program in (lbha, lbha.parent / "lbha-track"):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return lbha


@pytest.mark.parametrize("mode", Mode)
def test_the_longest_of_everything(
    mode: Mode, namespace: str, directory: Path, own_nodes: Callable[..., dict[str, Pool]]
) -> None:
    program = programs(long_path(directory, "lbha"))
    pem = {suffix: long_path(directory, f"{'x' * 40}.{suffix}") for suffix in ("crt", "key")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=x", "-days", "2", "-keyout", str(pem["key"]), "-out", str(pem["crt"])),
        ],
        check=True,
        capture_output=True,
    )
    cluster = parse(f"""
[cluster]
name = "{"c" * 63}"
vips = ["fd12:3456:789a:bcde:f012:3456:789a:bcde"]
interface = "{INTERFACE}"
virtual_router_id = 255
[nodes]
{"a" * 63} = "fd12:3456:789a:bcde:f012:3456:789a:bcd1"
{"b" * 63} = "fd12:3456:789a:bcde:f012:3456:789a:bcd2"
[services.{"s" * 32}]
kind = "kube-apiserver"
port = 65535
check = {{ interval = 3600, fast_interval = 3600, timeout = 3600, rise = 100, fall = 100 }}
tls = {{ ca = "{pem["crt"]}", cert = "{pem["crt"]}", key = "{pem["key"]}" }}
[failover]
advert_interval = 40.95
down_timer_adverts = 100
[health]
mode = "{mode}"
interval = 60
rise = 60
fall = 60
[paths]
lbha = "{program}"
state_dir = "{long_path(directory, "state")}"
run_dir = "{long_path(directory, "run", RUN_DIR_MAX)}"
haproxy_socket = "{long_path(directory, "s", SOCKET_MAX)}"
""")
    text = accepted(namespace, directory, cluster, own_nodes(cluster))
    longest = max(len(line) for line in text.splitlines())
    assert longest < 1024, "such a line crashes keepalived 2.2.7"
    assert longest > (900 if mode is Mode.SCRIPT else 500)


def test_words_that_mean_something_elsewhere_are_mere_names(
    namespace: str, directory: Path, own_nodes: Callable[..., dict[str, Pool]]
) -> None:
    nodes = "\n".join(f'{word} = "10.0.0.{10 + index}"' for index, word in enumerate(WORDS))
    kinds = ("etcd", "tcp", "kube-apiserver")
    services = "\n".join(
        f'[services.{word}]\nkind = "{kinds[index % 3]}"\nport = {7000 + index}\n'
        for index, word in enumerate(WORDS)
    )
    cluster = parse(f"""
[cluster]
name = "0"
vip = "10.0.0.100"
interface = "{INTERFACE}"
[nodes]
{nodes}
{services}
[failover]
advert_interval = 0.01
down_timer_adverts = 1
[paths]
state_dir = "{directory}"
lbha = "{programs(directory / "lbha")}"
haproxy_socket = "{directory}/s"
""")
    accepted(namespace, directory, cluster, own_nodes(cluster))


def test_the_largest_cluster(
    namespace: str, directory: Path, own_nodes: Callable[..., dict[str, Pool]]
) -> None:
    nodes = "\n".join(f'n{index} = ["10.0.1.{index}", "fd00::{index}"]' for index in range(1, 33))
    cluster = parse(f"""
[cluster]
name = "largest"
vips = [{", ".join(f'"10.0.2.{index}", "fd00:2::{index}"' for index in range(1, 17))}]
interface = "{INTERFACE}"
[nodes]
{nodes}
[services.etcd]
kind = "etcd"
[paths]
state_dir = "{directory}"
lbha = "{programs(directory / "lbha")}"
haproxy_socket = "{directory}/s"
""")
    accepted(namespace, directory, cluster, own_nodes(cluster, extra=100))


def test_haproxy_listens_on_the_longest_socket_path(directory: Path) -> None:
    """`haproxy -c` accepts two characters more, but haproxy binds PATH.PID.tmp first, and may not start."""
    socket = long_path(directory, "s", SOCKET_MAX)
    file = directory / "haproxy.cfg"
    file.write_text(f"global\n    stats socket {socket} mode 600 level admin\n")
    haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not socket.is_socket() and time.monotonic() < deadline and haproxy.poll() is None:
            time.sleep(0.02)
        assert socket.is_socket()
    finally:
        haproxy.kill()
        haproxy.wait()
    largest_pid = 4_194_304
    assert len(f"{socket}.{largest_pid}.tmp") <= 107
