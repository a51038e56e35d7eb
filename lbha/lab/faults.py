"""The faults: their names, whom they hit by default, and how the supervisor does and undoes them.

`*-kill` and `*-stop` keep the unit down until `heal`, as a process that does not come back; `*-freeze` is
SIGSTOP of all of the unit's processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

from lbha.errors import LabError
from lbha.lab import processes, wire
from lbha.lab.control import Fault
from lbha.lab.keeper import Keeper
from lbha.lab.spec import STAND_IN, LabNode, LabSpec
from lbha.lab.units import busy_loop, environment, error_file

BUSY_LOOPS = 8

KINDS: Mapping[str, str] = {
    "haproxy-kill": "haproxy's master and workers die",
    "haproxy-freeze": "haproxy stands still, its sockets stay open",
    "keepalived-kill": "every keepalived process dies at once, the VIP stays behind",
    "keepalived-stop": "keepalived is stopped in order (SIGTERM)",
    "apiserver-kill": "the node's apiserver dies",
    "apiserver-freeze": "the node's apiserver stands still, its socket stays open",
    "apiserver-error": "the node's apiserver answers 500",
    "etcd-kill": "the node's etcd member dies",
    "etcd-leader-kill": "the etcd member that leads dies, wherever it is",
    "etcd-quorum-loss": "so many etcd members die that no quorum is left; the named node's stays",
    "link-down": "the node's cable is pulled",
    "power-off": "the node is gone between two packets",
    "partition": "the node and the other nodes no longer hear each other; the client reaches both sides",
    "partition-one-way": "the other nodes no longer hear the node, which still hears them",
    "cpu-stress": f"{BUSY_LOOPS} busy loops on the node",
}
"""Every fault and what it means."""

_UNIT_FAULTS = {
    "haproxy-kill": ("haproxy", signal.SIGKILL),
    "haproxy-freeze": ("haproxy", signal.SIGSTOP),
    "keepalived-kill": ("keepalived", signal.SIGKILL),
    "keepalived-stop": ("keepalived", signal.SIGTERM),
    "apiserver-kill": ("apiserver", signal.SIGKILL),
    "apiserver-freeze": ("apiserver", signal.SIGSTOP),
    "etcd-kill": ("etcd", signal.SIGKILL),
    "etcd-leader-kill": ("etcd", signal.SIGKILL),
}


CUTS = ("partition", "partition-one-way")
"""The faults that are rules in the switch."""


NEED_PEERS = ("etcd-quorum-loss", *CUTS)
"""The faults that a lab of one node cannot have."""


def quorum_victims(spec: LabSpec, keep: str) -> tuple[str, ...]:
    """The nodes whose members must die so that no quorum is left, `keep` not among them."""
    count = len(spec.nodes)
    quorum = count // 2 + 1
    return tuple(node.name for node in spec.nodes if node.name != keep)[: count - quorum + 1]


class Faults:
    """Does faults to a lab, and knows which are active."""

    def __init__(self, spec: LabSpec, keepers: Mapping[tuple[str, str], Keeper]) -> None:
        self.active: list[Fault] = []
        self._spec = spec
        self._keepers = keepers
        self._busy: list[asyncio.subprocess.Process] = []

    async def inject(self, fault: Fault) -> tuple[str, ...]:
        """Do it; the names of the nodes that it hit. LabError when it cannot be done."""
        node = self._spec.node(fault.node)
        if fault.kind in NEED_PEERS and len(self._spec.nodes) == 1:
            raise LabError(f"{fault.kind} is about several nodes, and lab {self._spec.name} has one")
        hit: tuple[str, ...] = (node.name,)
        if fault.kind in _UNIT_FAULTS:
            name, number = _UNIT_FAULTS[fault.kind]
            keeper = self._keepers[node.name, name]
            if number is signal.SIGSTOP:
                await keeper.freeze()
            else:
                await keeper.hold(number)
        elif fault.kind == "apiserver-error":
            if self._spec.apiserver != STAND_IN:
                raise LabError("apiserver-error needs the stand-in apiserver: a real one cannot be told to err")
            error_file(node).touch()
        elif fault.kind == "etcd-quorum-loss":
            hit = quorum_victims(self._spec, node.name)
            for victim in hit:
                await self._keepers[victim, "etcd"].hold(signal.SIGKILL)
        elif fault.kind == "link-down":
            await asyncio.to_thread(wire.set_link, self._spec, node, up=False)
        elif fault.kind == "power-off":
            await self._power_off(node)
        elif fault.kind == "cpu-stress":
            await self._stress(node)
        elif fault.kind not in CUTS:
            raise LabError(f"no fault {fault.kind!r}; there are {', '.join(KINDS)}")
        self.active.append(fault)
        if fault.kind in CUTS:
            await self._cut()
        return hit

    async def heal(self) -> None:
        """Undo every fault and start what should run, without waiting for it."""
        faults, self.active = self.active, []
        self.calm()
        for node in self._spec.nodes:
            error_file(node).unlink(missing_ok=True)
            kinds = {fault.kind for fault in faults if fault.node == node.name}
            if "power-off" in kinds:
                await asyncio.to_thread(wire.forget, node)
            if kinds & {"power-off", "link-down"}:
                await asyncio.to_thread(wire.set_link, self._spec, node, up=True)
        if any(fault.kind in CUTS for fault in faults):
            await self._cut()
        for keeper in self._keepers.values():
            keeper.release()

    def calm(self) -> None:
        """End the busy loops."""
        for process in self._busy:
            if process.returncode is None:
                process.kill()
        self._busy = []

    async def _power_off(self, node: LabNode) -> None:
        """The cable first, so that no dying process tells anybody."""
        await asyncio.to_thread(wire.set_link, self._spec, node, up=False)
        for (name, _), keeper in self._keepers.items():
            if name == node.name:
                await keeper.hold(signal.SIGKILL)
        while rest := processes.in_namespaces([node.netns]):
            processes.kill(rest)

    async def _stress(self, node: LabNode) -> None:
        for _ in range(BUSY_LOOPS):
            self._busy.append(
                await asyncio.create_subprocess_exec(
                    *busy_loop(node),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=os.environ | environment(self._spec),
                )
            )

    async def _cut(self) -> None:
        both, outgoing = (
            tuple(self._spec.node(fault.node) for fault in self.active if fault.kind == kind) for kind in CUTS
        )
        await asyncio.to_thread(wire.cut, self._spec, both, outgoing)
