"""keepalived's driver: version, validate, what runs, reload, state. Behaviour measured on 2.2.7.

keepalived tells its state in files that it writes on a signal, into its own /tmp: they are read through
/proc/PID/root, so that a private /tmp or a container makes no difference. Needs root.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from lbha import engine, track_script
from lbha.engine import Deadline, Running
from lbha.errors import EngineError
from lbha.model import Paths

RELOAD_TIMEOUT = 10.0
"""Seconds. keepalived first has another keepalived check the file (20 to 40 ms), then reads it itself."""

_DUMP_TIMEOUT = 3.0
_VALIDATE_TIMEOUT = 10.0
_ASK_AGAIN = 0.25
_SETTLE = 0.5
_DATA = signal.SIGUSR1
_JSON = signal.SIGRTMIN + 2  # `keepalived --signum=JSON`: 36
_VERSION = re.compile(r"Keepalived v(\S+)")
_ROUTER_ID = re.compile(r"^ Router ID = (.*)\n", re.MULTILINE)
_CHECK_LOG = re.compile(r"^\s*reload_check_config\s+(/\S+)", re.MULTILINE)
_BOUNDING_SET = re.compile(r"^CapBnd:\s*([0-9a-f]+)", re.MULTILINE)
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_DIGEST = re.compile(r"lbha-([0-9a-f]{12})")

_T = TypeVar("_T")


class State(enum.IntEnum):
    """A VRRP instance's state, by keepalived's numbers."""

    INIT = 0
    BACKUP = 1
    MASTER = 2
    FAULT = 3


class Instance(msgspec.Struct, frozen=True):
    """A VRRP instance as keepalived's JSON tells it. A VIP reads `10.0.0.100 dev eth0 scope global set`."""

    iname: str
    state: State
    base_priority: int
    effective_priority: int
    vipset: bool
    vips: tuple[str, ...] = ()
    evips: tuple[str, ...] = ()


class _Dump(msgspec.Struct, frozen=True):
    data: Instance


class Keepalived:
    """The keepalived of a node."""

    name = "keepalived"
    file = "keepalived.conf"
    absent: str | None = None

    def __init__(self, paths: Paths) -> None:
        self._pid_file = Path(paths.keepalived_pid)
        self._conf = paths.keepalived_conf
        self._lbha = paths.lbha

    def version(self) -> str:
        """The installed version. EngineError when keepalived is not installed."""
        _, output = engine.run(self.name, ["-v"], 5.0)
        found = _VERSION.search(output)
        if found is None:
            raise EngineError(f"keepalived -v says {engine.first_problem(output.splitlines())}")
        return found.group(1)

    def validate(self, path: Path) -> None:
        """`keepalived -t`: warnings count. EngineError with keepalived's own words and line."""
        code, output = engine.run(self.name, ["-t", "-f", str(path)], _VALIDATE_TIMEOUT)
        if code != 0:
            raise EngineError(f"keepalived refuses {path}: {engine.first_problem(output.splitlines())}")

    def preflight(self, text: str, running: Running | None) -> None:
        """Prove that the track scripts run: where they cannot, keepalived takes the node for healthy."""
        track_script.prove(text, self._lbha)

    def running(self) -> Running | None:
        """The process and what it runs; None when keepalived does not run.

        Raises EngineError when it is frozen, or runs and its pid file does not say so.
        """
        pid = self.pid()
        if pid is None:
            if unseen := _reading(self._conf):
                raise EngineError(
                    f"keepalived runs {self._conf} (pid {unseen}) but {self._pid_file} does not name it, so it "
                    "cannot be reloaded; restart it, or set [paths] keepalived_pid"
                )
            return None
        router_id = self._dump(pid, _DATA, "keepalived.data", _router_id, Deadline(_DUMP_TIMEOUT))
        return Running(pid, _digest(router_id))

    def runs(self, running: Running, text: str) -> bool:
        """By its digest."""
        return running.digest == engine.digest_in(text)

    def adjustable(self, running: Running, text: str) -> bool:
        """Never: every change is a reload."""
        return False

    def adjust(self, text: str) -> bool:
        """Never."""
        return False

    def state(self) -> tuple[Instance, ...] | None:
        """The VRRP instances as keepalived has them; None when it does not run. EngineError when frozen."""
        pid = self.pid()
        if pid is None:
            return None
        return self._dump(pid, _JSON, "keepalived.json", _instances, Deadline(_DUMP_TIMEOUT))

    def pid(self) -> int | None:
        """From the pid file, when that process really is a living keepalived: pids are used again."""
        try:
            pid = int(self._pid_file.read_text())
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (OSError, ValueError):
            return None
        return pid if "(keepalived) " in stat and "(keepalived) Z" not in stat else None

    def survives_real_time(self) -> bool:
        """Whether keepalived may have `vrrp_rt_priority` and still be reloaded.

        On a reload 2.2.7 sets RLIMIT_RTTIME to 0 and then raises it again. Without CAP_SYS_RESOURCE that
        fails, and the kernel kills the VRRP process: the VIP leaves (measured: 0.7 to 4 s without a VIP).
        Asked of the keepalived that runs; else of process 1, since keepalived will have no more than it.
        """
        status = _read(Path(f"/proc/{self.pid() or 1}/status"))
        found = _BOUNDING_SET.search(status)
        return found is None or bool(int(found.group(1), 16) >> _CAP_SYS_RESOURCE & 1)

    def reload(self, text: str) -> None:
        """SIGHUP; returns when keepalived shows the digest of `text`, which lies in its place.

        Without a digest in it: when keepalived still answers after a moment and has refused nothing.
        Raises EngineError when it refuses the file or does not show it within RELOAD_TIMEOUT.
        """
        deadline = Deadline(RELOAD_TIMEOUT)
        pid = self.pid()
        if pid is None:
            raise EngineError(f"keepalived ended: {self._pid_file} names no keepalived any more")
        named = _CHECK_LOG.search(text)
        log = Path(named.group(1)) if named else None
        if log is not None:
            with contextlib.suppress(FileNotFoundError):
                log.unlink()
        _signal(pid, signal.SIGHUP)
        digest = engine.digest_in(text)
        if digest is None:
            deadline.wait(_SETTLE)
        while True:
            # With time of its own: the last answer, cut short, would be taken for a frozen keepalived.
            found = _digest(self._dump(pid, _DATA, "keepalived.data", _router_id, Deadline(_DUMP_TIMEOUT)))
            if refusal := _read(log):
                raise EngineError(f"keepalived refuses to reload: {engine.first_problem(refusal.splitlines())}")
            if found == digest:
                return
            if not deadline.wait(0.02):
                raise EngineError(
                    f"keepalived (pid {pid}) does not run it within {RELOAD_TIMEOUT:g} s: it shows "
                    f"{found or 'no digest'}; does it read another file than [paths] keepalived_conf?"
                )

    def _dump(
        self, pid: int, number: int, name: str, parse: Callable[[str], _T | None], deadline: Deadline
    ) -> _T:
        """Have keepalived write a file about itself, and read it until it is whole.

        The old file goes first: what is read was written after the signal. A keepalived that has only just
        started loses signals (19 of 25 at its first instant, measured), so it is asked again.
        """
        path = Path(f"/proc/{pid}/root/tmp/{name}")
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        asked_at = deadline.left + _ASK_AGAIN
        while True:
            if asked_at - deadline.left >= _ASK_AGAIN:
                if self.pid() != pid:
                    raise EngineError(f"keepalived (pid {pid}) ended; its log says why")
                _signal(pid, number)
                asked_at = deadline.left
            parsed = parse(_read(path))
            if parsed is not None:
                return parsed
            if not deadline.wait(0.002):
                raise EngineError(
                    f"keepalived (pid {pid}) did not write /tmp/{name} in time; it may be frozen: "
                    "look at it, restart it, then try again"
                )


def _reading(conf: str) -> int | None:
    """The pid of a keepalived in this network namespace that was started on that file."""
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            if (entry / "comm").read_text() != "keepalived\n":
                continue
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            here = (entry / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        except OSError:  # it ended meanwhile
            continue
        named = [word.removeprefix("--use-file=").removeprefix("-f") for word in words[1:]]
        elsewhere = any(word.startswith(("-f", "--use-file")) for word in words[1:])
        if here and (conf in named or (not elsewhere and conf == "/etc/keepalived/keepalived.conf")):
            return int(entry.name)
    return None


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise EngineError(f"keepalived (pid {pid}) ended; its log says why") from None
    except PermissionError:
        raise EngineError(f"keepalived (pid {pid}) may be signalled by root only; run as root") from None


def _router_id(text: str) -> str | None:
    found = _ROUTER_ID.search(text)
    return found.group(1).strip() if found else None


def _digest(router_id: str) -> str | None:
    found = _DIGEST.fullmatch(router_id)
    return found.group(1) if found else None


def _instances(text: str) -> tuple[Instance, ...] | None:
    # Not written in one go: 166 of 200 immediate reads saw half of it (measured).
    try:
        return tuple(dump.data for dump in msgspec.json.decode(text, type=list[_Dump]))
    except msgspec.DecodeError:
        return None


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}; read it as root") from None
