"""haproxy's driver against the real haproxy, and 3.x's manner of reloading against a named stand-in."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbha.errors import EngineError
from lbha.haproxy import Haproxy
from lbha.haproxy_socket import NotListening, Socket
from lbha.model import Paths


class Daemon:
    """A real haproxy in master-worker mode, and two ports of its own."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=f"lbha-haproxy-{os.getpid()}-"))
        self.cfg = self.root / "haproxy.cfg"
        self.paths = Paths(
            state_dir=str(self.root),
            haproxy_socket=str(self.root / "admin.sock"),
            haproxy_master_socket=str(self.root / "master.sock"),
        )
        self.driver = Haproxy(self.paths)
        self.port, self.server_port = _free_port(), _free_port()
        self.state_file = self.root / "haproxy.state"
        self.driver.forget_state()
        self.process: subprocess.Popen[bytes] | None = None

    def text(self, digest: str, *, server_port: int | None = None, inter: str = "100ms", more: str = "") -> str:
        return (
            f"global\n  description lbha-{digest}\n  stats socket {self.paths.haproxy_socket} level admin\n"
            f"  server-state-file {self.state_file}\n{more}"
            "defaults\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n"
            "  load-server-state-from-file global\n"
            f"frontend f\n  bind 127.0.0.1:{self.port}\n  default_backend b\n"
            f"backend b\n  server s1 127.0.0.1:{server_port or self.server_port} check inter {inter} "
            "fall 1 rise 1\n"
        )

    def start(self, text: str) -> None:
        self.cfg.write_text(text)
        self.process = subprocess.Popen(
            ["haproxy", "-W", "-S", self.paths.haproxy_master_socket, "-f", self.cfg], stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while not (self.root / "master.sock").exists() or not (self.root / "admin.sock").exists():
            assert time.monotonic() < end
            time.sleep(0.02)

    def reload(self, text: str) -> None:
        self.cfg.write_text(text)
        self.driver.reload(text)

    def server_is_up(self) -> bool:
        state = Socket(self.paths.haproxy_socket).ask("show servers state")
        return state.splitlines()[2].split()[5] == "2"

    def close(self) -> None:
        if self.process:
            running = self.driver.running()
            if running is not None:
                os.kill(running.pid, signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)
        shutil.rmtree(self.root)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    try:
        yield daemon
    finally:
        daemon.close()


def test_version_and_validation_speak_haproxys_own_words(daemon: Daemon) -> None:
    assert daemon.driver.version().split(".")[0].isdigit()
    daemon.cfg.write_text(daemon.text("aaaaaaaaaaaa"))
    daemon.driver.validate(daemon.cfg)
    daemon.cfg.write_text(daemon.text("aaaaaaaaaaaa", more="  nonsense\n"))
    with pytest.raises(EngineError, match=r"haproxy.cfg:5\].*unknown keyword 'nonsense'") as caught:
        daemon.driver.validate(daemon.cfg)
    assert "\n" not in str(caught.value)
    daemon.cfg.write_text("defaults\n  mode tcp\nfrontend f\n  bind 127.0.0.1:1\n")  # a warning alone
    with pytest.raises(EngineError, match="missing timeouts for frontend 'f'"):
        daemon.driver.validate(daemon.cfg)


def test_what_runs_and_a_reload(daemon: Daemon) -> None:
    assert daemon.driver.running() is None
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    before = daemon.driver.running()
    assert before is not None and before.digest == "aaaaaaaaaaaa"
    daemon.reload(daemon.text("bbbbbbbbbbbb"))
    after = daemon.driver.running()
    assert after is not None and after.digest == "bbbbbbbbbbbb" and after.pid != before.pid
    # An operator's own file carries no digest: a new worker is the proof.
    daemon.reload(daemon.text("x"))
    now = daemon.driver.running()
    assert now is not None and now.digest is None and now.pid != after.pid


def test_a_reload_that_fails_leaves_the_old_worker(daemon: Daemon) -> None:
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    before = daemon.driver.running()
    bad = daemon.text("bbbbbbbbbbbb").replace("default_backend", "bind unix@/none/x\n  default_backend")
    with pytest.raises(EngineError, match="did not start"):
        daemon.reload(bad)
    assert daemon.driver.running() == before
    daemon.reload(daemon.text("cccccccccccc"))
    after = daemon.driver.running()
    assert after is not None and after.digest == "cccccccccccc"


def test_a_haproxy_that_reads_another_file_is_found_out(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbha.haproxy.RELOAD_TIMEOUT", 1.0)
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    with pytest.raises(EngineError, match="does it read another file"):
        daemon.driver.reload(daemon.text("bbbbbbbbbbbb"))


def test_a_server_that_is_down_stays_down_over_a_reload(daemon: Daemon) -> None:
    """Without the state file it would be up until its first check, which is 60 s away here."""
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    end = time.monotonic() + 10
    while daemon.server_is_up():
        assert time.monotonic() < end
        time.sleep(0.02)
    daemon.reload(daemon.text("bbbbbbbbbbbb", inter="60s"))
    assert not daemon.server_is_up()
    # Afterwards the state is forgotten: a restart must not believe what was true at the last reload.
    assert daemon.state_file.read_text() == "1\n"


def test_a_state_that_cannot_be_saved_does_not_stop_a_reload(daemon: Daemon) -> None:
    """As on a full disk."""
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    beside = daemon.state_file.with_name(f".{daemon.state_file.name}.new")
    beside.mkdir()  # nothing can be written there
    daemon.reload(daemon.text("bbbbbbbbbbbb"))
    after = daemon.driver.running()
    assert after is not None and after.digest == "bbbbbbbbbbbb"
    assert daemon.state_file.read_text() == "1\n"


def test_a_server_that_moved_gets_its_new_port(daemon: Daemon) -> None:
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        daemon.reload(daemon.text("bbbbbbbbbbbb", server_port=port))
        state = Socket(daemon.paths.haproxy_socket).ask("show servers state")
        assert state.splitlines()[2].split()[18] == str(port)


def test_a_frozen_worker_is_told_in_time(daemon: Daemon) -> None:
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    running = daemon.driver.running()
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"did not answer `show info`.*frozen"):
            daemon.driver.running()
        assert time.monotonic() - start < 8
    finally:
        os.kill(running.pid, signal.SIGCONT)


def test_what_haproxy_would_fail_on_is_found_before(daemon: Daemon) -> None:
    daemon.start(daemon.text("aaaaaaaaaaaa"))
    running = daemon.driver.running()
    daemon.driver.preflight(daemon.text("bbbbbbbbbbbb"), running)  # its own port is no obstacle
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = daemon.text("bbbbbbbbbbbb").replace(
            "default_backend", f"bind 127.0.0.1:{port}\n  default_backend"
        )
        with pytest.raises(EngineError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            daemon.driver.preflight(text, running)
        daemon.driver.preflight(text, None)
    foreign = daemon.text("bbbbbbbbbbbb").replace("default_backend", "bind 192.0.2.1:81 {}\n  default_backend")
    with pytest.raises(EngineError, match=r"cannot listen on 192.0.2.1:81: Cannot assign"):
        daemon.driver.preflight(foreign.format(""), running)
    if os.geteuid() == 0:
        daemon.driver.preflight(foreign.format("transparent"), running)
    with pytest.raises(EngineError, match="chroot /none: /none does not exist; mkdir -p /none"):
        daemon.driver.preflight(daemon.text("b", more="  chroot /none\n"), running)


def test_a_socket_that_trickles_is_cut_at_the_deadline(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stop = threading.Event()

    def trickle() -> None:
        connection, _ = server.accept()
        with connection:
            while not stop.wait(0.1):
                connection.sendall(b"x")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            start = time.monotonic()
            with pytest.raises(EngineError, match="did not answer `show info`"):
                Socket(path).ask("show info", 0.5)
            assert time.monotonic() - start < 3
        finally:
            stop.set()
            thread.join()
    with pytest.raises(NotListening):
        Socket(path).ask("show info", 0.5)


class StandInForMaster3:
    """Speaks as haproxy 3.0.11's master did when asked (`reload` answers when it is done), and nothing else.

    No package of haproxy 3 is in Debian 12; the texts are copied from a real one.
    """

    def __init__(self, paths: Paths, answer: str, digest_after: str) -> None:
        self._answer, self._digest_after = answer, digest_after
        self._reloads, self._worker, self._digest = 0, 388, "aaaaaaaaaaaa"
        self._servers = [self._serve(path) for path in (paths.haproxy_master_socket, paths.haproxy_socket)]

    def _serve(self, path: str) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        threading.Thread(target=self._loop, args=(server,), daemon=True).start()
        return server

    def _loop(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self._reply(connection.recv(100).decode().strip()).encode())

    def _reply(self, command: str) -> str:
        if command == "reload":
            time.sleep(0.02)
            self._reloads += 1
            if self._answer.startswith("Success=1"):
                self._worker, self._digest = 412, self._digest_after
            return self._answer
        if command == "show proc":
            failed = 0 if self._answer.startswith("Success=1") else self._reloads
            return (
                "#<PID>          <type>          <reloads>       <uptime>        <version>      \n"
                f"379             master          {self._reloads} [failed: {failed}]   0d00h00m03s     3.0.11\n"
                f"# workers\n{self._worker}             worker          0          0d00h00m03s     3.0.11\n"
                "# programs\n\n"
            )
        if command == "show info":
            return (
                f"Name: HAProxy\nVersion: 3.0.11-1\nPid: {self._worker}\ndescription: lbha-{self._digest}\n\n"
            )
        return "1\n# be_id be_name\n\n"

    def close(self) -> None:
        for server in self._servers:
            server.shutdown(socket.SHUT_RDWR)
            server.close()


@pytest.mark.parametrize(
    ("answer", "digest_after", "problem"),
    [
        ("Success=1\n--\n[NOTICE]   (379) : Loading success.\n", "bbbbbbbbbbbb", None),
        (
            "Success=0\n--\n[NOTICE]   (379) : haproxy version is 3.0.11-1+deb13u4\n"
            "[ALERT]    (379) : Binding [/etc/haproxy/haproxy.cfg:14] for frontend f: protocol tcpv4: "
            "cannot bind socket (Address already in use) for [127.0.0.1:21983].\n"
            "[WARNING]  (379) : Loading failure!\n\n",
            "aaaaaaaaaaaa",
            "did not start with it: Binding .*haproxy.cfg:14.*Address already in use",
        ),
        ("Success=1\n--\n", "cccccccccccc", "worker 412 runs cccccccccccc"),
    ],
)
def test_the_dialogue_of_haproxy_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, digest_after: str, problem: str | None
) -> None:
    monkeypatch.setattr("lbha.haproxy.RELOAD_TIMEOUT", 1.0)
    paths = Paths(
        state_dir=str(tmp_path),
        haproxy_socket=str(tmp_path / "admin.sock"),
        haproxy_master_socket=str(tmp_path / "master.sock"),
    )
    master = StandInForMaster3(paths, answer, digest_after)
    try:
        driver = Haproxy(paths)
        if problem is None:
            driver.reload("global\n  description lbha-bbbbbbbbbbbb\n")
            assert driver.running() is not None
        else:
            with pytest.raises(EngineError, match=problem):
                driver.reload("global\n  description lbha-bbbbbbbbbbbb\n")
    finally:
        master.close()
