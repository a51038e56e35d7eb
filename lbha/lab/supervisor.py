"""The lab's systemd: one background process a lab that starts every unit and starts it again when it dies.

Each unit has its keeper (`keeper.py`). Faults are done here too (`faults.py`), so that a fault and a restart
never race. Run as `python -m lbha.lab.supervisor
LABDIR`; it answers on LABDIR/control.sock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lbha.errors import LabError
from lbha.lab import processes
from lbha.lab.control import Heal, Inject, Reply, Report, Request, Stop, UnitState
from lbha.lab.faults import Faults
from lbha.lab.keeper import Keeper, say
from lbha.lab.spec import SPEC_FILE, LabSpec, read
from lbha.lab.units import units

_HEAL_TIMEOUT = 30.0


class Supervisor:
    """All units of one lab, and the socket that commands them."""

    def __init__(self, spec: LabSpec) -> None:
        self.spec = spec
        self.keepers = {(unit.node, unit.name): Keeper(spec, unit) for unit in units(spec)}
        self._stop = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Until told to stop."""
        faults = Faults(self.spec, self.keepers)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        tasks = [asyncio.create_task(keeper.keep()) for keeper in self.keepers.values()]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reply = await self._answer(faults, await reader.readline())
            writer.write(msgspec.json.encode(reply) + b"\n")
            writer.close()

        os.umask(0o077)
        server = await asyncio.start_unix_server(serve, self.spec.control)
        async with server:
            await self._stop.wait()
            await self._end_everything(faults)
        for task in tasks:
            task.cancel()

    async def _answer(self, faults: Faults, line: bytes) -> Reply:
        try:
            request: Request = msgspec.json.decode(line, type=Request)
            hit: Sequence[str] = ()
            match request:
                case Inject(fault):
                    say(f"fault {fault.kind} on {fault.node}")
                    async with self._one_at_a_time:
                        hit = await faults.inject(fault)
                case Heal():
                    say("heal")
                    async with self._one_at_a_time:
                        await faults.heal()
                        await self._all_running()
                case Stop():
                    await self._end_everything(faults)
                    self._stop.set()
                case Report():
                    pass
        except (LabError, msgspec.DecodeError) as error:
            return Reply(error=str(error))
        reports = tuple(keeper.report for keeper in self.keepers.values())
        return Reply(hit=tuple(hit), units=reports, faults=tuple(faults.active))

    async def _all_running(self) -> None:
        deadline = time.monotonic() + _HEAL_TIMEOUT
        while idle := [k.unit for k in self.keepers.values() if k.state is not UnitState.RUNNING]:
            if time.monotonic() > deadline:
                unit = idle[0]
                raise LabError(
                    f"{unit.name} of {unit.node} does not stay up; see "
                    f"{self.spec.log}/{unit.node}-{unit.name}.log"
                )
            await asyncio.sleep(0.02)

    async def _end_everything(self, faults: Faults) -> None:
        """SIGKILL and reap, so that no zombie is left where process 1 does not reap."""
        faults.calm()
        for keeper in self.keepers.values():
            await keeper.hold(signal.SIGKILL)
        while any(keeper.pid for keeper in self.keepers.values()):
            await asyncio.sleep(0.01)


def main(argv: Sequence[str]) -> int:
    """Supervise the lab in the directory given as the only argument."""
    processes.adopt_orphans()
    asyncio.run(Supervisor(read(Path(argv[0]) / SPEC_FILE)).run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
