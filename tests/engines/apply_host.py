"""A host for the tests of apply: a network namespace with a real haproxy, a real keepalived with a /tmp of its
own, a few TCP servers, and a client that counts what fails. `close` leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbha.haproxy import Haproxy
from lbha.keepalived import Keepalived
from lbha.lab.units import private_tmp
from lbha.model import Paths

PORT = 7000
ADDRESS, VIP = "10.99.7.1", "10.99.7.100"
_NUMBERS = itertools.count()

_SERVERS = """
import asyncio, sys
async def serve(reader, writer):
    await reader.read(1); writer.write(b"ok"); writer.close()
async def main():
    for port in sys.argv[2:]:
        await asyncio.start_server(serve, sys.argv[1], int(port))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

_CLIENT = """
import json, signal, socket, sys, threading, time
host, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
stop = []  # No Event: its lock is not the handler's to take while the main thread is inside of it.
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
failed, done, lock, gate = [], 0, threading.Lock(), threading.Semaphore(100)
def ask(start):
    global done
    try:
        with socket.create_connection((host, port), 3) as s:
            s.sendall(b"x"); s.settimeout(3); good = s.recv(2) == b"ok"
    except OSError as error:
        good = repr(error)
    with lock:
        done += 1
        if good is not True: failed.append((round(start, 2), str(good)))
    gate.release()
begin = time.monotonic(); number = 0; threads = []
while not stop:
    gate.acquire(); t = threading.Thread(target=ask, args=(time.monotonic() - begin,)); t.start()
    number += 1
    time.sleep(max(0, begin + number / rate - time.monotonic()))
for t in threading.enumerate():
    if t is not threading.current_thread(): t.join()
print(json.dumps({"done": done, "failed": failed}))
"""


@dataclass
class Count:
    """What a client saw."""

    done: int
    failed: list[list[object]]


class Host:
    """One node of a cluster of one."""

    def __init__(self) -> None:
        self.netns = f"lbha-apply-{os.getpid()}-{next(_NUMBERS)}"
        # Not below /tmp: keepalived has another one.
        self.root = Path(tempfile.mkdtemp(prefix=f"{self.netns}-", dir="/run"))
        self.paths = Paths(
            state_dir=str(self.root / "state"),
            haproxy_cfg=str(self.root / "etc/haproxy.cfg"),
            haproxy_socket=str(self.root / "admin.sock"),
            haproxy_master_socket=str(self.root / "master.sock"),
            keepalived_conf=str(self.root / "etc/keepalived.conf"),
            keepalived_pid=str(self.root / "keepalived.pid"),
        )
        self.haproxy, self.keepalived = Haproxy(self.paths), Keepalived(self.paths)
        self.toml = self.root / "lbha.toml"
        self.state_dir = Path(self.paths.state_dir)
        self._processes: list[subprocess.Popen[str]] = []
        (self.root / "etc").mkdir()
        try:
            for command in (
                f"ip netns add {self.netns}",
                f"ip -n {self.netns} link add eth0 type veth peer name far0",
                f"ip -n {self.netns} link set lo up",
                f"ip -n {self.netns} link set far0 up",
                f"ip -n {self.netns} link set eth0 up",
                f"ip -n {self.netns} addr add {ADDRESS}/24 dev eth0",
            ):
                subprocess.run(command.split(), check=True, capture_output=True)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process that this host started, and remove its namespace and files."""
        for process in self._processes:
            if process.poll() is None:
                _signal_tree(process.pid, signal.SIGCONT)
                _signal_tree(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        subprocess.run(["ip", "netns", "pids", self.netns], check=False, capture_output=True)
        left = subprocess.run(
            ["ip", "netns", "pids", self.netns], check=False, capture_output=True, text=True
        ).stdout.split()
        for pid in left:  # workers whose master is gone: in our namespace, so ours
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.netns], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def configure(self, backends: Sequence[int] = (9001, 9002), extra: str = "", port: int = PORT) -> None:
        """Write lbha.toml: one TCP service with servers at those ports of this host."""
        listed = ", ".join(f'"{ADDRESS}:{backend}"' for backend in backends)
        paths = "\n".join(
            f'{key} = "{getattr(self.paths, key)}"' for key in Paths.__dataclass_fields__ if key != "lbha"
        )
        self.toml.write_text(
            f'[cluster]\nname = "one"\nvip = "{VIP}"\n[nodes]\ncp1 = "{ADDRESS}"\n'
            f'[services.web]\nkind = "tcp"\nport = {port}\ntarget_port = 9001\nbackends = [{listed}]\n'
            f"check = {{ interval = 0.2, fast_interval = 0.1, timeout = 0.5 }}\n"
            f"[paths]\n{paths}\n{extra}"
        )

    def spawn(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """Start a program in the namespace."""
        process = subprocess.Popen(  # type: ignore[call-overload]
            ["ip", "netns", "exec", self.netns, *command],
            text=True,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
        )
        self._processes.append(process)
        return process  # type: ignore[no-any-return]

    def start_servers(self, *ports: int, address: str = ADDRESS) -> subprocess.Popen[str]:
        """TCP servers that answer "ok"."""
        servers = self.spawn(sys.executable, "-c", _SERVERS, address, *map(str, ports), stdout=subprocess.PIPE)
        assert servers.stdout and servers.stdout.readline() == "ready\n"
        return servers

    def start_haproxy(self, *, master: bool = True) -> subprocess.Popen[str]:
        """haproxy in master-worker mode, on whatever its file holds."""
        sockets = ("-S", self.paths.haproxy_master_socket) if master else ()
        log = (self.root / "haproxy.log").open("w")
        process = self.spawn("haproxy", "-W", "-f", self.paths.haproxy_cfg, *sockets, stderr=log)
        wait_for(lambda: _answers(self.haproxy), "haproxy to answer")
        return process

    def start_keepalived(self) -> subprocess.Popen[str]:
        """keepalived with a /tmp of its own, as a unit with PrivateTmp= has."""
        private = self.root / "tmp"
        private.mkdir(exist_ok=True)
        conf, pid = self.paths.keepalived_conf, self.paths.keepalived_pid
        process = self.spawn(
            "unshare", "-m", "sh", "-ec", f"mount --make-rprivate /; {private_tmp(self.root)}", "sh",
            "sh", "-c",
            f"exec keepalived --dont-fork --log-console --log-detail --use-file={conf} --pid={pid} "
            f"--vrrp_pid={self.root}/vrrp.pid > {self.root}/keepalived.log 2>&1",
        )  # fmt: skip
        wait_for(lambda: self.keepalived.running() is not None, "keepalived to answer")
        return process

    def start(self, backends: Sequence[int] = (9001, 9002)) -> None:
        """First apply, servers, both daemons, and the VIP in its place."""
        self.configure(backends)
        assert self.apply().returncode == 0
        self.start_servers(9001, 9002, 9003)
        self.start_haproxy()
        self.start_keepalived()
        wait_for(lambda: VIP in self.ip("addr", "show", "dev", "eth0"), "the VIP")

    def lbha(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run lbha in the namespace."""
        process = self.start_lbha(*arguments, **options)
        out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start_lbha(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """Start lbha in the namespace."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.spawn(sys.executable, "-m", "lbha", *arguments, **{**pipes, **options})

    def apply(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`lbha apply`."""
        return self.lbha("apply", "-c", str(self.toml), *arguments)

    def rollback(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`lbha rollback`."""
        return self.lbha("rollback", "-c", str(self.toml), *arguments)

    def client(self, rate: float) -> Callable[[], Count]:
        """Ask through the VIP `rate` times a second until the returned function is called."""
        process = self.spawn(sys.executable, "-c", _CLIENT, VIP, str(PORT), str(rate), stdout=subprocess.PIPE)

        def stop() -> Count:
            process.terminate()
            out, _ = process.communicate(timeout=20)
            return Count(**json.loads(out))

        time.sleep(0.3)
        return stop

    def ip(self, *arguments: str) -> str:
        """`ip` in the namespace."""
        return subprocess.run(
            ["ip", "-n", self.netns, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def settle(self, seconds: float = 2.0) -> None:
        """Wait until the VIP has been here without a break: a daemon that was frozen catches up first."""
        end, since = time.monotonic() + 20, time.monotonic()
        while time.monotonic() - since < seconds:
            assert time.monotonic() < end, "the VIP does not settle"
            if VIP not in self.ip("addr", "show", "dev", "eth0"):
                since = time.monotonic()
            time.sleep(0.02)

    def file(self, name: str) -> str:
        """What lies in place of haproxy.cfg or keepalived.conf."""
        return (self.root / "etc" / name).read_text()

    def worker(self) -> int:
        """haproxy's worker."""
        running = self.haproxy.running()
        assert running is not None
        return running.pid


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 15.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout:g} s for {what}"
        time.sleep(0.02)


def _answers(haproxy: Haproxy) -> bool:
    try:
        return haproxy.running() is not None
    except Exception:
        return False


def _signal_tree(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            _signal_tree(int(child), number)
        os.kill(pid, number)
