"""One unit of the lab: started, and started again when it dies, except while a fault holds it down.

Restart=always, RestartSec=100ms, StartLimitBurst=5 in StartLimitIntervalSec=10s, then failed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from datetime import UTC, datetime

from lbha.errors import LabError
from lbha.lab import processes
from lbha.lab.control import UnitReport, UnitState
from lbha.lab.spec import LabSpec
from lbha.lab.units import Unit, environment

RESTART_DELAY = 0.1
START_LIMIT = 5
START_INTERVAL = 10.0
_CLEAR_ROUNDS = 400
_TAKES_EFFECT = 2.0


class Keeper:
    """Keeps one unit running, except while a fault holds it down."""

    def __init__(self, spec: LabSpec, unit: Unit) -> None:
        self.unit = unit
        self.state = UnitState.RESTARTING
        self.restarts = 0
        self._environment = os.environ | environment(spec)
        self._log = spec.log / f"{unit.node}-{unit.name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._starts: deque[float] = deque(maxlen=START_LIMIT)
        self._wanted = asyncio.Event()
        self._wanted.set()

    @property
    def pid(self) -> int | None:
        """The main process, while it lives."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def report(self) -> UnitReport:
        """What the supervisor tells of this unit."""
        return UnitReport(self.unit.node, self.unit.name, self.state, self.pid, self.restarts)

    async def keep(self) -> None:
        """Start, wait for the end, start again; for ever."""
        while True:
            await self._wanted.wait()
            self._starts.append(time.monotonic())
            await self._run()
            if not self._wanted.is_set():
                continue
            if len(self._starts) == START_LIMIT and time.monotonic() - self._starts[0] < START_INTERVAL:
                say(f"{self.unit.node} {self.unit.name}: started too often, given up")
                self.state = UnitState.FAILED
                self._wanted.clear()
            else:
                await asyncio.sleep(RESTART_DELAY)
                self.restarts += 1

    async def _run(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.unit.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        if not self._wanted.is_set():  # A fault arrived while the process was being made.
            self._process.kill()
        else:
            self.state = UnitState.RUNNING
        code = await self._process.wait()
        if self._wanted.is_set():
            self.state = UnitState.RESTARTING
        say(f"{self.unit.node} {self.unit.name}: ended with {code}")
        await self._clear(self._process.pid)

    async def _clear(self, leader: int) -> None:
        """End what the main process left behind (systemd: KillMode=control-group): it would hold the ports."""
        for _ in range(_CLEAR_ROUNDS):
            rest = processes.in_session(leader)
            if not rest:
                return
            processes.kill(rest)
            processes.reap(rest)
            await asyncio.sleep(0.005)

    async def hold(self, number: signal.Signals) -> None:
        """End the unit and keep it down. SIGKILL ends all its processes at once, and returns when they are
        dead; another signal goes to the main one, as `systemctl stop` would."""
        self._wanted.clear()
        self.state = UnitState.DOWN
        if not self._process:
            return
        if number is signal.SIGKILL:
            # Stopped first, none of them can react to the death of another.
            self._signal_all(signal.SIGSTOP)
            await _until(self._signal_all(signal.SIGKILL), ("", "Z", "X"))
        elif self.pid:
            processes.kill([self.pid], number)

    async def freeze(self) -> None:
        """Stop every process of the unit where it stands, and return when they do. LabError when it does not
        run."""
        if self.state is not UnitState.RUNNING:
            raise LabError(f"{self.unit.name} of {self.unit.node} is {self.state}: it cannot be frozen")
        self.state = UnitState.FROZEN
        await _until(self._signal_all(signal.SIGSTOP), ("", "Z", "X", "T"))

    def release(self) -> None:
        """Undo `hold`, `freeze` and a reached start limit."""
        if self.state is UnitState.FROZEN:
            self.state = UnitState.RUNNING
            self._signal_all(signal.SIGCONT)
        if not self._wanted.is_set():
            self._starts.clear()
            self.state = UnitState.RESTARTING
            self._wanted.set()

    def _signal_all(self, number: signal.Signals) -> set[int]:
        """To every process of the unit, twice over: the first pass may miss one that was just forked."""
        hit: set[int] = set()
        for _ in range(2 if self._process else 0):
            assert self._process
            hit.update(found := processes.in_session(self._process.pid))
            processes.kill(found, number)
        return hit


async def _until(pids: set[int], states: tuple[str, ...]) -> None:
    """Wait until a signal has taken effect on all of them: on another core that is some ms later."""
    deadline = time.monotonic() + _TAKES_EFFECT
    while any(processes.state(pid) not in states for pid in pids) and time.monotonic() < deadline:
        await asyncio.sleep(0.001)


def say(text: str) -> None:
    """A line for LABDIR/log/supervisor.log."""
    print(datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3], text, flush=True)
