"""haproxy's driver: version, validate, what runs, reload. Behaviour measured on 2.6.12 and on 3.0.11."""

from __future__ import annotations

import contextlib
import errno
import re
from dataclasses import dataclass, replace
from pathlib import Path

from lbha import adjust, engine, files, haproxy_text, listen, live, overrides
from lbha.engine import Deadline, Running
from lbha.errors import EngineError
from lbha.haproxy_socket import NotListening, Socket, fields
from lbha.haproxy_text import Bind
from lbha.live import Command
from lbha.model import Paths

RELOAD_TIMEOUT = 20.0
"""Seconds. 10000 servers with TLS take 2.9 s to parse, a port that is taken 2.4 s to fail (measured)."""

_MASTER_PATIENCE = 1.0
"""Seconds. A master that executes itself anew does not listen for some 0.1 s."""

_VALIDATE_TIMEOUT = 30.0
_VERSION = re.compile(r"HAProxy version (\S+)", re.IGNORECASE)
_MESSAGE = re.compile(r"^\[(ALERT|WARNING)\]\s+(?:\d+/\d+\s+)?\(\d+\)\s*:\s*(?:config\s*:\s*)*(.*)")
_SUMMARY = ("Error(s) found", "Fatal errors found", "Some warnings were found", "Loading failure")
_MASTER = re.compile(r"^\d+\s+master\s+(\d+)\s+\[failed: (\d+)\]", re.MULTILINE)
_WORKER = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)
_DIGEST = re.compile(r"lbha-([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Processes:
    """`show proc`: how often the master reloaded, how often in a row that failed, and its worker."""

    reloads: int
    failed: int
    worker: int | None


class Haproxy:
    """The haproxy of a node, in master-worker mode (`-W -S MASTER_SOCKET`)."""

    name = "haproxy"
    file = "haproxy.cfg"
    absent: str | None = None

    def __init__(self, paths: Paths) -> None:
        self._admin = Socket(paths.haproxy_socket)
        self._master = Socket(paths.haproxy_master_socket)
        self._state_dir = Path(paths.state_dir)
        self._state_file = self._state_dir / "haproxy.state"

    def version(self) -> str:
        """The installed version. EngineError when haproxy is not installed."""
        _, output = engine.run(self.name, ["-v"], 5.0)
        found = _VERSION.search(output)
        if found is None:
            raise EngineError(f"haproxy -v says {engine.first_problem(output.splitlines())}")
        return found.group(1)

    def validate(self, path: Path) -> None:
        """`haproxy -c -dW`: warnings count. EngineError with haproxy's own words and line."""
        code, output = engine.run(self.name, ["-c", "-dW", "-f", str(path)], _VALIDATE_TIMEOUT)
        if code != 0:
            raise EngineError(f"haproxy refuses {path}: {_reason(output)}")

    def preflight(self, text: str, running: Running | None) -> None:
        """What `-c` leaves out: that it can listen, and enter its chroot.

        A port that another process holds makes a reload fail, and the old worker refuses every connection
        for the 2.4 s until haproxy gives up (measured). A missing chroot ends all of haproxy.
        """
        for directory, line in haproxy_text.needed_directories(text):
            if not Path(directory).is_dir():
                raise EngineError(f"haproxy.cfg: {line}: {directory} does not exist; mkdir -p {directory}")
        if running is not None:
            for bind in haproxy_text.binds(text):
                _try_bind(bind)

    def running(self) -> Running | None:
        """The worker and what it runs; None when haproxy does not run.

        Raises EngineError when it is frozen, or runs without a master socket.
        """
        deadline = Deadline(_MASTER_PATIENCE)
        while True:
            info, processes = self._info(), self._processes()
            if info is None and processes is None:
                return None
            if processes is not None:
                # No admin socket at that path: another configuration runs, or none yet.
                if info is None:
                    return Running(processes.worker or 0, None)
                return replace(info, servers=adjust.servers(self._admin) if info.digest else ())
            if not deadline.wait(0.05):
                raise EngineError(
                    f"haproxy answers on {self._admin.path} but has no master socket at "
                    f"{self._master.path}, so it cannot be reloaded; run it with -W -S {self._master.path} "
                    "(Debian's unit does), or set [paths] haproxy_master_socket"
                )

    def runs(self, running: Running, text: str) -> bool:
        """By the digest of its structure, and by its servers one by one."""
        return running.digest == engine.digest_in(text) and self._commands(running, text) == []

    def adjustable(self, running: Running, text: str) -> bool:
        """Whether it runs the structure of `text`, and slots are free for its new servers."""
        return running.digest == engine.digest_in(text) and self._commands(running, text) is not None

    def adjust(self, text: str) -> bool:
        """Through the admin socket (`lbha.adjust`). False when the structure differs, or on any surprise."""
        digest = engine.digest_in(text)
        try:
            info = self._info()
            if digest is None or info is None or info.digest != digest:
                return False
            return adjust.converge(self._admin, text, overrides.read(self._state_dir))
        except EngineError:
            return False  # a reload says why

    def _commands(self, running: Running, text: str) -> list[Command] | None:
        return live.commands(text, running.servers, overrides.read(self._state_dir))

    def info(self, timeout: float = 3.0) -> dict[str, str]:
        """`show info`, names in lower case. NotListening or EngineError when it does not answer."""
        return fields(self._admin.ask("show info", timeout))

    def save_state(self, text: str) -> None:
        """Lay the state file for a reload to `text`: which servers are down now, so that none gets traffic.

        Without it a dead server took 9 requests in the first 0.3 s after a reload (measured). It is the
        state of one moment: `forget_state` follows, or a restart days later would believe it. On a full disk
        the reload goes without: that is no reason to refuse it, and less to leave the way back.
        """
        try:
            state = self._admin.ask("show servers state")
        except NotListening:
            state = ""
        saved = live.state_for(text, state, overrides.read(self._state_dir))
        with contextlib.suppress(OSError):
            files.write(self._state_file, saved.encode(), files.PRIVATE)

    def forget_state(self) -> None:
        """Leave a state file that says nothing."""
        empty = haproxy_text.EMPTY_STATE.encode()
        if files.read(self._state_file) != empty:
            files.write(self._state_file, empty, files.PRIVATE)

    def reload(self, text: str) -> None:
        """Reload through the master socket; returns when a new worker answers with the digest of `text`.

        2.6 answers nothing and executes itself anew; 3.0 answers `Success=1`, or `Success=0` and its log.
        Raises EngineError when the old worker goes on, or none answers within RELOAD_TIMEOUT.
        """
        deadline, patience = Deadline(RELOAD_TIMEOUT), Deadline(_MASTER_PATIENCE)
        while (before := self._processes()) is None:
            if not patience.wait(0.05):
                raise EngineError(f"haproxy's master socket {self._master.path} is gone")
        self.save_state(text)
        try:
            answer = self._ask_reload(deadline)
            if answer.startswith("Success=0"):
                raise EngineError(f"haproxy did not start with it: {_reason(answer)}")
            worker = self._new_worker(before, deadline)
            digest = engine.digest_in(text)
            self._verify(worker, digest, deadline)
            if digest and not adjust.converge(self._admin, text, overrides.read(self._state_dir)):
                raise EngineError("haproxy runs it, but not with its servers; see: lbha apply --dry-run")
        finally:
            self.forget_state()

    def _ask_reload(self, deadline: Deadline) -> str:
        try:
            return self._master.ask("reload", deadline.left)
        except NotListening:  # 2.6 may reset the connection as it goes
            return ""

    def _new_worker(self, before: Processes, deadline: Deadline) -> int:
        while True:
            now = self._processes()
            if now is not None and now.reloads != before.reloads:
                if now.failed:
                    raise EngineError(
                        "haproxy did not start a worker with it, the old one goes on; its log says why"
                    )
                if now.worker is not None and now.worker != before.worker:
                    return now.worker
            if not deadline.wait(0.01):
                raise EngineError(f"haproxy started no new worker within {RELOAD_TIMEOUT:g} s")

    def _verify(self, worker: int, digest: str | None, deadline: Deadline) -> None:
        seen = "no worker answered"
        while True:
            # Not only what is left: the last answer, cut short, would be taken for a frozen haproxy.
            found = self._info()
            if found is not None and found.pid == worker and found.digest == digest:
                return
            if found is not None:
                seen = f"worker {found.pid} runs {found.digest or 'a file without a digest'}"
            now = self._processes()
            if now is not None and now.worker != worker:
                raise EngineError(f"haproxy's new worker {worker} ended at once; its log says why")
            if not deadline.wait(0.01):
                raise EngineError(
                    f"haproxy does not run it within {RELOAD_TIMEOUT:g} s: {seen}; does it read another "
                    "file than [paths] haproxy_cfg?"
                )

    def _info(self) -> Running | None:
        try:
            info = self.info()
        except NotListening:
            return None
        pid = info.get("pid", "")
        digest = _DIGEST.fullmatch(info.get("description", ""))
        return Running(int(pid), digest and digest.group(1)) if pid.isdigit() else None

    def _processes(self) -> Processes | None:
        try:
            answer = self._master.ask("show proc")
        except NotListening:
            return None
        master = _MASTER.search(answer)
        if master is None:  # half an answer from a master that executes itself anew
            return None
        current = answer.partition("# workers")[2].partition("# old workers")[0]
        worker = _WORKER.search(current)
        return Processes(int(master.group(1)), int(master.group(2)), int(worker.group(1)) if worker else None)


def _reason(output: str) -> str:
    found: dict[str, list[str]] = {"ALERT": [], "WARNING": []}
    for line in output.splitlines():
        match = _MESSAGE.match(line)
        if match and not match.group(2).startswith(_SUMMARY):
            found[match.group(1)].append(match.group(2).strip())
    return engine.first_problem(found["ALERT"] or found["WARNING"] or output.split("\n", 1)[:1])


def _try_bind(bind: Bind) -> None:
    """Bind as haproxy will, without listening. EngineError when the address is not to be had."""
    try:
        listen.bind_probe(bind.endpoint, transparent=bind.transparent)
    except PermissionError:
        return  # not root: haproxy will see
    except OSError as error:
        cure = "choose an address of this host"
        if error.errno == errno.EADDRINUSE:
            cure = f"see who has it: ss -ltnp 'sport = :{bind.endpoint.port}'"
        raise EngineError(f"haproxy cannot listen on {bind.endpoint}: {error.strerror}; {cure}") from None
