"""The faults: their names, whom they hit by default, and how the supervisor does and undoes them.

`*-kill` and `*-stop` keep the unit down until `heal`, as a process that does not come back; `*-freeze` is
SIGSTOP of all of the unit's processes; `*-restart` ends the unit in order, and the supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping

from lbha import trackers
from lbha.errors import LabError
from lbha.lab import processes, wire
from lbha.lab.apiserver import EVERYTHING, READINESS
from lbha.lab.control import Fault
from lbha.lab.keeper import Keeper
from lbha.lab.spec import STAND_IN, LabNode, LabSpec
from lbha.lab.units import busy_loop, environment, error_file, product, run_directory

BUSY_LOOPS = 8

KINDS: Mapping[str, str] = {
    "haproxy-kill": "haproxy's master and workers die",
    "haproxy-freeze": "haproxy stands still, its sockets stay open",
    "keepalived-kill": "every keepalived process dies at once, the VIP stays behind",
    "keepalived-stop": "keepalived is stopped in order (SIGTERM)",
    "apiserver-kill": "the node's apiserver dies",
    "apiserver-freeze": "the node's apiserver stands still, its socket stays open",
    "apiserver-error": "the node's apiserver answers 500 to everything",
    "apiserver-unready": "the node's apiserver answers 500 to /readyz and serves everything else",
    "etcd-kill": "the node's etcd member dies",
    "etcd-leader-kill": "the etcd member that leads dies, wherever it is",
    "etcd-quorum-loss": "so many etcd members die that no quorum is left; the named node's stays",
    "link-down": "the node's cable is pulled",
    "power-off": "the node is gone between two packets",
    "partition": "the node and the other nodes no longer hear each other; the client reaches both sides",
    "partition-one-way": "the other nodes no longer hear the node, which still hears them",
    "cpu-stress": f"{BUSY_LOOPS} busy loops on the node",
    "agent-kill": "the node's agent dies",
    "agent-freeze": "the node's agent stands still",
    "agent-restart": "the node's agent is stopped in order and started again",
    "drain": "an operator drains the node with `lbha drain`",
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
    "agent-kill": ("agent", signal.SIGKILL),
    "agent-freeze": ("agent", signal.SIGSTOP),
}

CUTS = ("partition", "partition-one-way")
"""The faults that are rules in the switch."""

_ERRORS = {"apiserver-error": EVERYTHING, "apiserver-unready": READINESS}
"""What the stand-in's error file says."""

_NEED_PEERS = ("etcd-quorum-loss", *CUTS)
_NEED_AGENT = ("agent-kill", "agent-freeze", "agent-restart", "drain")

UNDRAIN_TIMEOUT = 15.0
"""Seconds that an agent that was just started gets until it can be told to undrain."""


def impossible(spec: LabSpec, kind: str) -> str | None:
    """Why that fault cannot be done to this lab; None when it can."""
    if kind not in KINDS:
        return f"no fault {kind!r}; there are {', '.join(KINDS)}"
    if kind in _NEED_PEERS and len(spec.nodes) == 1:
        return f"{kind} is about several nodes, and lab {spec.name} has one"
    if kind in _NEED_AGENT and spec.setup != "lbha-agent":
        return f"{kind} needs an agent, and lab {spec.name} is set up with {spec.setup}"
    if kind in _ERRORS and spec.apiserver != STAND_IN:
        return f"{kind} needs the stand-in apiserver: a real one cannot be told to err"
    return None


def quorum_victims(spec: LabSpec, keep: str) -> tuple[str, ...]:
    """The nodes whose members must die so that no quorum is left, `keep` not among them."""
    members = spec.having("etcd")
    count = len(members)
    quorum = count // 2 + 1
    return tuple(node.name for node in members if node.name != keep)[: count - quorum + 1]


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
        if why := impossible(self._spec, fault.kind):
            raise LabError(why)
        hit: tuple[str, ...] = (node.name,)
        if fault.kind in _UNIT_FAULTS:
            name, number = _UNIT_FAULTS[fault.kind]
            if (node.name, name) not in self._keepers:
                raise LabError(f"{fault.kind}: {node.name} runs no {name}")
            keeper = self._keepers[node.name, name]
            if number is signal.SIGSTOP:
                await keeper.freeze()
            else:
                await keeper.hold(number)
        elif fault.kind in _ERRORS:
            error_file(node).write_text(_ERRORS[fault.kind])
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
        elif fault.kind == "agent-restart":
            self._keepers[node.name, "agent"].restart()
        elif fault.kind == "drain":
            await self._tell(node, "drain", "--force", "--reason", "lab")
        self.active.append(fault)
        if fault.kind in CUTS:
            await self._cut()
        return hit

    async def heal(self) -> None:
        """Undo every fault and start what should run, waiting only for agents that drain."""
        faults, self.active = self.active, []
        self.calm()
        for node in self._spec.nodes:
            error_file(node).unlink(missing_ok=True)
            kinds = {fault.kind for fault in faults if fault.node == node.name}
            if "power-off" in kinds:
                await asyncio.to_thread(self._boot, node)
            if kinds & {"power-off", "link-down"}:
                await asyncio.to_thread(wire.set_link, self._spec, node, up=True)
        if any(fault.kind in CUTS for fault in faults):
            await self._cut()
        for keeper in self._keepers.values():
            keeper.release()
        for name in dict.fromkeys(fault.node for fault in faults if fault.kind == "drain"):
            await self._undrain(self._spec.node(name))

    def calm(self) -> None:
        """End the busy loops."""
        for process in self._busy:
            if process.returncode is None:
                process.kill()
        self._busy = []

    async def _power_off(self, node: LabNode) -> None:
        """The cable first, so that no dying process tells anybody."""
        await asyncio.to_thread(wire.set_link, self._spec, node, up=False)
        # All stand still before the first one dies, or keepalived would answer the death of haproxy.
        processes.kill(processes.in_namespaces([node.netns]), signal.SIGSTOP)
        for (name, _), keeper in self._keepers.items():
            if name == node.name:
                await keeper.hold(signal.SIGKILL)
        while rest := processes.in_namespaces([node.netns]):
            processes.kill(rest)
        await asyncio.to_thread(_forget_memory, node)

    def _boot(self, node: LabNode) -> None:
        """What is done before the first unit starts: systemd-tmpfiles makes run_dir afresh."""
        wire.forget(node)
        if self._spec.setup == "lbha-agent":
            trackers.prepare(run_directory(node))
        elif self._spec.stacked:
            wire.run(list(product(node, "apply")))  # lbha-reload.timer, which a lab does not have

    async def _stress(self, node: LabNode) -> None:
        for _ in range(BUSY_LOOPS):
            self._busy.append(
                await asyncio.create_subprocess_exec(
                    *busy_loop(node),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=os.environ | environment(self._spec),
                )
            )

    async def _undrain(self, node: LabNode) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UNDRAIN_TIMEOUT
        while True:
            try:
                return await self._tell(node, "undrain")
            except LabError:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(0.2)

    async def _tell(self, node: LabNode, *words: str) -> None:
        """An operator's command on the node. LabError with its last line when it is refused."""
        process = await asyncio.create_subprocess_exec(
            *product(node, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | environment(self._spec),
        )
        said, _ = await process.communicate()
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise LabError(f"`lbha {' '.join(words)}` on {node.name}: {lines[-1].removeprefix('lbha: ')}")

    async def _cut(self) -> None:
        both, outgoing = (
            tuple(self._spec.node(fault.node) for fault in self.active if fault.kind == kind) for kind in CUTS
        )
        await asyncio.to_thread(wire.cut, self._spec, both, outgoing)


def _forget_memory(node: LabNode) -> None:
    """What lies in memory on a real machine: /run and keepalived's /tmp. Directories below that /tmp are left:
    they are where keepalived's mount namespace had its mounts."""
    shutil.rmtree(run_directory(node), ignore_errors=True)
    volatile = [*node.directory.glob("*.sock"), *node.directory.glob("*.pid")]
    volatile += [path for path in (node.directory / "tmp").iterdir() if not path.is_dir()]
    for path in volatile:
        path.unlink(missing_ok=True)
