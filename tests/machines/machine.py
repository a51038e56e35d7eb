"""Machines that systemd boots: systemd-nspawn in network namespaces, on a bridge of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_BOOT = r"""
set -e
# One cgroup tree of our own (v2), whatever the host has mounted, and nothing of the host's systemd.
umount -R -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/$GROUP /run/systemd
mount -t tmpfs tmpfs /run/systemd
while :; do
    code=0
    sh -c 'echo $$ >/sys/fs/cgroup/$GROUP/cgroup.procs
        exec nsenter --net=/run/netns/$SWITCH systemd-nspawn --quiet --settings=no --register=no --keep-unit \
            --machine=$NAME --directory=$ROOT "$@"' sh "$@" </dev/null || code=$?
    [ $code = 133 ] || exit $code   # 133: it wants to be booted again
done
"""
_WITH_US = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""However the tests end, killed too: their machines end with them, all processes of this namespace at once."""

_ENTER = ("-m", "-u", "-i", "-n", "-p", "-C", "--")
_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
    "HOME=/root",
    "DEBIAN_FRONTEND=noninteractive",
)


class Machine:
    """One machine: `root` is its file system, seen from outside; `base` is what lies below, unchanged."""

    def __init__(self, name: str, address: str, work: Path, base: Path, switch: str) -> None:
        self.name, self.address = name, address
        self.root = work / name / "root"
        self._log = work / f"{name}.log"
        self._group = f"{work.name}-{name}"
        self._environment = os.environ | {
            "NAME": name,
            "ROOT": str(self.root),
            "SWITCH": switch,
            "GROUP": self._group,
        }
        self._process: subprocess.Popen[bytes] | None = None
        upper, scratch = work / name / "upper", work / name / "work"
        for directory in (self.root, upper, scratch):
            directory.mkdir(parents=True)
        options = f"lowerdir={base},upperdir={upper},workdir={scratch}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)], check=True)

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """A file of the machine's."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)
        place.chmod(mode)

    def read(self, path: str) -> str:
        """A file of the machine's."""
        return (self.root / path.lstrip("/")).read_text()

    def power_on(self, *options: str) -> None:
        """Boot; `wait_booted` says when that is done."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_WITH_US,
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    _BOOT,
                    "sh",
                    *options,
                ],
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def try_run(self, *argv: str) -> str | None:
        """Run a program without booting: why systemd-nspawn cannot work here; None when it can."""
        self.power_on("--as-pid2", "--private-network", "--pipe", *argv)
        assert self._process
        code = self._process.wait(60)
        return None if code == 0 else self.log()

    def log(self) -> str:
        """The end of what systemd-nspawn said."""
        return self._log.read_text(errors="replace")[-2000:]

    def power_off(self) -> None:
        """Pull the plug: the wire first, so that no dying process says goodbye."""
        if self._process is None:
            return
        link = ("ip", "-n", self._environment["SWITCH"], "link")
        subprocess.run([*link, "set", f"vb-{self.name}", "down"], check=False, capture_output=True)
        for pid in (self._leader(), self._nspawn(), self._process.pid):
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait(20)
        self._process = None
        subprocess.run([*link, "del", f"vb-{self.name}"], check=False, capture_output=True)

    def destroy(self) -> None:
        """Pull the plug, and leave nothing."""
        self.power_off()
        subprocess.run(["umount", "-l", str(self.root)], check=False)
        # A cgroup is busy until the kernel has buried its last process.
        eventually(f"the cgroups of {self.name} are gone", self._remove_cgroups)

    def _remove_cgroups(self) -> bool:
        trees = [Path(tree) / self._group for tree in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")]
        for tree in trees:
            for directory, _, _ in os.walk(tree, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()
        return not any(tree.exists() for tree in trees)

    def wait_booted(self, seconds: float = 60.0) -> None:
        """Until systemd has started everything."""
        eventually(f"{self.name} has booted", lambda: self._leader() is not None, seconds)
        eventually(f"{self.name} is up", self._up, seconds)

    def _up(self) -> bool:
        state = self("systemctl", "is-system-running", check=False)
        return state == "running" or "degraded" in state

    def reboot(self) -> None:
        """As an operator does; returns when it has booted again."""
        before = self.boot_id
        self("systemctl", "reboot", check=False)
        eventually(f"{self.name} boots again", lambda: self._leader() and self.boot_id not in ("", before), 90)
        self.wait_booted()

    @property
    def boot_id(self) -> str:
        """Changes with each boot: when process 1 was started; empty while it is off."""
        leader = self._leader()
        try:
            return Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            return ""

    def __call__(self, *argv: str, check: bool = True, timeout: float = 120.0) -> str:
        """What a command says that an operator types on the machine; with `check`, it must succeed."""
        leader = self._leader()
        if leader is None:
            assert not check, f"{self.name} is off: {self.log()}"
            return "off"
        done = subprocess.run(
            ["nsenter", "-t", str(leader), *_ENTER, "env", "-i", *_ENVIRONMENT, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stdout}"
        return (
            done.stdout.strip() if done.returncode == 0 or check else f"exit {done.returncode}: {done.stdout}"
        )

    def shell(self, line: str, **more: float) -> str:
        """A line of shell."""
        return self("sh", "-ec", line, **more)  # type: ignore[arg-type]

    def pid(self, unit: str) -> int:
        """The main process of a service, as the machine counts; 0 when it does not run."""
        return int(self("systemctl", "show", "-P", "MainPID", unit))

    def read_process(self, unit: str, file: str) -> str:
        """A file of /proc/PID of a service's main process."""
        return self("cat", f"/proc/{self.pid(unit)}/{file}")

    def active(self, *units: str) -> bool:
        """Whether all of them are."""
        return not self("systemctl", "is-active", "--quiet", *units, check=False).startswith("exit")

    def holds(self, address: str) -> bool:
        """Whether the address is on its interface; False while it is off."""
        return f" {address}/" in self("ip", "-o", "address", "show", "dev", "host0", check=False)

    def _nspawn(self) -> int | None:
        """The systemd-nspawn below our shell."""
        return None if self._process is None else _child(self._process.pid, "systemd-nspawn")

    def _leader(self) -> int | None:
        """Process 1 of the machine."""
        nspawn = self._nspawn()
        return None if nspawn is None else _child(nspawn, "systemd")


def _child(parent: int, program: str) -> int | None:
    """A descendant of a process whose program has that name."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return None
    for child in map(int, children):
        with suppress(OSError):
            if Path(f"/proc/{child}/exe").readlink().name == program:
                return child
        if found := _child(child, program):
            return found
    return None


class Network:
    """A bridge in a namespace of its own, and a client beside the machines."""

    def __init__(self, name: str, client_address: str) -> None:
        self.switch, self.client = f"{name}-sw", f"{name}-client"
        for line in (
            f"netns add {self.switch}",
            f"netns add {self.client}",
            f"-n {self.switch} link add br0 type bridge forward_delay 0",
            f"-n {self.switch} link set br0 up",
            f"-n {self.switch} link add p-client type veth peer name eth0 netns {self.client}",
            f"-n {self.switch} link set p-client master br0 up",
            f"-n {self.client} link set lo up",
            f"-n {self.client} address add {client_address} dev eth0",
            f"-n {self.client} link set eth0 up",
        ):
            subprocess.run(["ip", *line.split()], check=True)

    def destroy(self) -> None:
        """Leave nothing."""
        for name in (self.switch, self.client):
            subprocess.run(["ip", "netns", "del", name], check=False)


def eventually(what: str, holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until `holds()` is true; fail with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def readme_blocks(readme: str) -> list[str]:
    """The blocks of commands in README's section about installing."""
    section = readme.partition("## Install on real nodes")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def missing_programs() -> list[str]:
    """What the machines need on this host."""
    needed = ("systemd-nspawn", "debootstrap", "dpkg-deb", "nsenter", "setpriv", "unshare", "ip")
    return [each for each in needed if not shutil.which(each)]
