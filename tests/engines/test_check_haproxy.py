"""`lbha check haproxy` against the real haproxy in every state, and against what is no haproxy at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

IN_TIME = 1.5
"""Seconds from start to end that a test grants; the check itself promises 0.9 on a host that is not busy."""


def check(*arguments: str) -> tuple[int, str]:
    """Exit code and the reason; asserts one line, no noise and an end in time."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lbha", "check", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert time.monotonic() - began < IN_TIME
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout.strip()


@dataclass
class Haproxy:
    """haproxy in master-worker mode with two services and the frontend for metrics."""

    directory: Path
    master: subprocess.Popen[bytes]
    port: int

    @property
    def socket(self) -> str:
        return str(self.directory / "admin.sock")

    def ask(self, command: str, path: str | None = None) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path or self.socket)
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def worker(self) -> int:
        info = self.ask("show info")
        return int(info.split("\nPid: ")[1].split("\n")[0])

    def check(self) -> tuple[int, str]:
        return check("haproxy", "--socket", self.socket)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Haproxy]:
    ports = [free_port() for _ in range(3)]
    (tmp_path / "haproxy.cfg").write_text(f"""
global
    stats socket {tmp_path}/admin.sock mode 600 level admin
    hard-stop-after 20s
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
frontend apiserver
    bind 127.0.0.1:{ports[0]}
    default_backend dead
frontend etcd
    bind 127.0.0.1:{ports[1]}
    default_backend dead
backend dead
    server cp1 127.0.0.1:1 check inter 100ms
frontend lbha.metrics
    mode http
    bind 127.0.0.1:{ports[2]}
    http-request return status 404
""")
    master = subprocess.Popen(
        ["haproxy", "-W", "-S", str(tmp_path / "master.sock"), "-f", str(tmp_path / "haproxy.cfg")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running = Haproxy(tmp_path, master, ports[2])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                running.worker()
                break
            time.sleep(0.05)
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)
        master.wait()


def test_a_haproxy_whose_every_server_is_dead_still_serves(haproxy: Haproxy) -> None:
    """haproxy judges backends: if everyone is sick, the VIP stays where it is."""
    for _ in range(50):
        if "DOWN" in haproxy.ask("show stat"):
            break
        time.sleep(0.05)
    assert "DOWN" in haproxy.ask("show stat")
    code, reason = haproxy.check()
    assert code == 0
    assert reason.startswith("ok: haproxy ")
    assert reason.endswith(" answers, 2 frontends open")


def test_frozen_and_thawed(haproxy: Haproxy) -> None:
    worker = haproxy.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert haproxy.check() == (
            1,
            f"bad: haproxy: after 0.9 s still without an answer on {haproxy.socket} (frozen?)",
        )
    finally:
        os.kill(worker, signal.SIGCONT)
    assert haproxy.check()[0] == 0


def test_frozen_with_a_full_backlog(haproxy: Haproxy) -> None:
    worker = haproxy.worker()
    os.kill(worker, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(os.kill, worker, signal.SIGCONT)
        # The signal is delivered later than sent: until then a thread may accept and make room.
        while any(") T " not in stat.read_text() for stat in Path(f"/proc/{worker}/task").glob("*/stat")):
            time.sleep(0.01)
        with pytest.raises(BlockingIOError):
            for _ in range(10_000):
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(haproxy.socket)
        code, reason = haproxy.check()
        assert code == 1
        assert "full backlog" in reason


def test_killed(haproxy: Haproxy) -> None:
    os.killpg(haproxy.master.pid, signal.SIGKILL)
    haproxy.master.wait()
    for _ in range(100):
        code, reason = haproxy.check()
        if code:
            break
        time.sleep(0.05)
    assert (code, reason) == (
        1,
        f"bad: haproxy: Connection refused on {haproxy.socket}: haproxy is down, or listens elsewhere",
    )


def test_no_socket(tmp_path: Path) -> None:
    code, reason = check("haproxy", "--socket", str(tmp_path / "none.sock"))
    assert (code, "No such file or directory on" in reason) == (1, True)


def test_soft_stop_with_a_session_left(haproxy: Haproxy) -> None:
    with socket.create_connection(("127.0.0.1", haproxy.port)):
        worker = haproxy.worker()
        os.kill(worker, signal.SIGUSR1)
        time.sleep(0.3)
        os.kill(worker, 0)  # it still carries the session
        assert haproxy.check()[0] == 1


@pytest.mark.parametrize(("command", "state"), [("disable", "PAUSED"), ("shutdown", "STOP")])
def test_a_frontend_that_does_not_listen(haproxy: Haproxy, command: str, state: str) -> None:
    haproxy.ask(f"{command} frontend lbha.metrics")
    assert haproxy.check()[0] == 0
    haproxy.ask(f"{command} frontend etcd")
    code, reason = haproxy.check()
    assert code == 1
    assert reason.endswith(f"not open: etcd {state}")


def test_reloads_are_no_failure(haproxy: Haproxy) -> None:
    over = threading.Event()
    reloads = 0

    def reload() -> None:
        nonlocal reloads
        while not over.wait(0.2):
            with contextlib.suppress(OSError):  # the master is just executing itself anew
                haproxy.ask("reload", str(haproxy.directory / "master.sock"))
                reloads += 1

    first = haproxy.worker()
    thread = threading.Thread(target=reload)
    thread.start()
    try:
        results, until = set(), time.monotonic() + 20
        while reloads < 6 and time.monotonic() < until:
            results |= {haproxy.check() for _ in range(10)}
    finally:
        over.set()
        thread.join()
    assert {code for code, _ in results} == {0}, results
    assert reloads >= 6
    assert haproxy.worker() != first


def trickle(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"N")
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"Name: HAProxy\n" * 4096)


def half_answer(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"Name: HAProxy\nVersion: 2.6.12\nStopping: 0\n\n# pxname,svname,status\n")


PEERS: dict[str, tuple[Callable[[socket.socket], object], str]] = {
    "silent": (lambda connection: time.sleep(5), "without an answer"),
    "trickle": (trickle, "without the end of the answer"),
    "flood": (flood, "no haproxy"),
    "ends at once": (lambda connection: None, "(broke|without an answer)"),
    "half-closed": (lambda connection: (connection.shutdown(socket.SHUT_WR), time.sleep(5)), "without an ans"),
    "half an answer": (half_answer, "broke off"),
    "another daemon": (lambda connection: connection.sendall(b"\xff\x00hello\n"), "(broke|no haproxy)"),
}


@pytest.mark.parametrize("name", PEERS)
def test_whoever_listens_there_the_check_ends_in_time(tmp_path: Path, name: str) -> None:
    behave, expected = PEERS[name]
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                behave(connection)

        threading.Thread(target=serve, daemon=True).start()
        code, reason = check("haproxy", "--socket", path)
    assert code == 1
    assert re.search(expected, reason), reason


class TestStdout:
    """A verdict is the exit code; nobody need listen to the reason."""

    COMMAND = (sys.executable, "-m", "lbha", "check", "holder", "--vip")

    @pytest.mark.parametrize(("vip", "code"), [("127.0.0.1", 0), ("192.0.2.1", 1)])
    def test_closed(self, vip: str, code: int) -> None:
        shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *self.COMMAND, vip]
        assert subprocess.run(shell, timeout=10, check=False).returncode == code

    @pytest.mark.parametrize(("vip", "code"), [("127.0.0.1", 0), ("192.0.2.1", 1)])
    def test_nobody_reads(self, vip: str, code: int) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = subprocess.run([*self.COMMAND, vip], stdout=writer, stderr=writer, timeout=10, check=False)
            assert done.returncode == code
        finally:
            os.close(writer)

    @pytest.mark.parametrize(("vip", "code"), [("127.0.0.1", 0), ("192.0.2.1", 1)])
    def test_a_full_pipe(self, vip: str, code: int) -> None:
        reader, writer = os.pipe()
        try:
            os.set_blocking(writer, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"x" * 4096)
            os.set_blocking(writer, True)
            began = time.monotonic()
            done = subprocess.run([*self.COMMAND, vip], stdout=writer, timeout=10, check=False)
            assert time.monotonic() - began < IN_TIME
            assert done.returncode == code
        finally:
            os.close(reader)
            os.close(writer)


@pytest.fixture
def dead_filesystem(tmp_path: Path) -> Iterator[Path]:
    """A mounted filesystem whose server never answers: a process that opens a file there can only be killed."""
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse")
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "dead"
    place.mkdir()
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"lbha-test", bytes(place), b"fuse", 0, options):
            pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}")
        yield place
    finally:
        os.close(server)  # ends every request, so that nothing hangs in the unmount either
        libc.umount2(bytes(place), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["haproxy", "--socket", "{}/admin.sock"],
        ["haproxy", "--config", "{}/lbha.toml"],
        ["etcd", "--kind", "etcd", "--address", "127.0.0.1:9", "--ca", "{}/ca.pem"],
        ["etcd", "--kind", "etcd", "--address", "127.0.0.1:9", "--cert", "{}/a.pem", "--key", "{}/a.key"],
    ],
)
def test_a_dead_filesystem(dead_filesystem: Path, arguments: list[str]) -> None:
    code, reason = check(*(each.format(dead_filesystem) for each in arguments))
    assert code == 1
    assert f"after 0.9 s still {'asking' if '--socket' in arguments else 'reading'}" in reason


def test_the_short_way_imports_nothing_heavy(haproxy: Haproxy) -> None:
    heavy = {"click", "httpx", "pyroute2", "ssl", "socket", "enum", "json", "dataclasses", "argparse", "typing"}
    heavy |= {"re", "msgspec", "tomllib", "pathlib", "ipaddress", "signal", "select", "selectors", "subprocess"}
    for arguments in (["haproxy", "--socket", haproxy.socket], ["holder", "--vip", "127.0.0.1"]):
        # By the entry itself: `-m` would bring the imports of runpy.
        program = "import sys; from lbha.__main__ import main; main()"
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", program, "check", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("ok: ")
        imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
        assert "lbha.check.watch" in imported
        assert not heavy & imported
