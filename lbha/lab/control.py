"""The words between the lab's commands and its supervisor: one JSON line each way over a UNIX socket."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from lbha.errors import LabError
from lbha.lab.spec import LabSpec


class UnitState(StrEnum):
    """What a unit does."""

    RUNNING = "running"
    RESTARTING = "restarting"
    DOWN = "down"
    """A fault ended it and keeps it down."""
    FROZEN = "frozen"
    """A fault stopped its processes (SIGSTOP)."""
    FAILED = "failed"
    """It died too often: the start limit was hit."""


@dataclass(frozen=True, slots=True)
class UnitReport:
    """One unit as the supervisor sees it. `pid` is its main process, None when there is none."""

    node: str
    name: str
    state: UnitState
    pid: int | None
    restarts: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of that kind on that node."""

    kind: str
    node: str


class Inject(msgspec.Struct, frozen=True, tag="inject"):
    """Do this fault. The reply's `hit` names the nodes that it hit."""

    fault: Fault


class Heal(msgspec.Struct, frozen=True, tag="heal"):
    """Undo every fault; the reply comes when every unit runs."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Tell the state of units and the active faults."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End every process of the lab, and then yourself."""


Request = Inject | Heal | Report | Stop


class Reply(msgspec.Struct, frozen=True):
    """The answer to any request; `error` says why it was not done."""

    error: str | None = None
    hit: tuple[str, ...] = ()
    units: tuple[UnitReport, ...] = ()
    faults: tuple[Fault, ...] = ()


def ask(spec: LabSpec, request: Request, timeout: float = 60.0) -> Reply:
    """Send one request and return its answer.

    LabError when no supervisor answers within `timeout` seconds, or when it refused.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout)
            link.connect(str(spec.control))
            link.sendall(msgspec.json.encode(request) + b"\n")
            with link.makefile("rb") as lines:
                line = lines.readline()
        reply = msgspec.json.decode(line, type=Reply)
    except (OSError, msgspec.DecodeError) as error:
        raise LabError(
            f"lab {spec.name}: its supervisor does not answer at {spec.control} ({error}); "
            f"see {spec.log}/supervisor.log, or end the lab with `lbha lab down --name {spec.name}`"
        ) from None
    if reply.error:
        raise LabError(reply.error)
    return reply
