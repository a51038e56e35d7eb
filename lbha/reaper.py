"""The end of sessions that nobody will miss: on servers that left their pool, and in old workers.

An agent calls `reap` now and then, in a thread (`asyncio.to_thread`): it blocks for `seconds` at most. It
takes the server itself out only when its last session has ended, which makes its slot free again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from lbha import adjust, engine, files, live
from lbha.engine import Deadline
from lbha.errors import ApplyError, EngineError
from lbha.facts import OldWorker
from lbha.haproxy import Haproxy
from lbha.haproxy_socket import Socket
from lbha.live import Command, Server
from lbha.model import Paths
from lbha.sessions import ASK_SECONDS, Session, end, sessions

DRAIN_SECONDS = 30
"""How long a server that left its pool keeps its sessions: clients that end by themselves should."""

RATE = 1000
"""Sessions ended in a second at most: all their clients come back at once."""

_WORKER = re.compile(r"^(\d+)\s+worker\s+\d+\s+(?:(\d+)d)?(\d+)h(\d+)m(\d+)s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one call did: sessions ended (of left servers, of old workers), servers parked; and what is left."""

    ended: int = 0
    stranded: int = 0
    parked: tuple[str, ...] = ()
    old_workers: tuple[OldWorker, ...] = ()


def reap(paths: Paths, *, rate: int = RATE, seconds: float = 1.0) -> Reaped:
    """End what is due, at most `rate` sessions a second, for at most `seconds`. EngineError, OSError.

    Nothing is due while haproxy does not run what lies in its place: then nobody knows what left.
    """
    deadline = Deadline(seconds)
    text = (files.read(Path(paths.haproxy_cfg)) or b"").decode("utf-8", "replace")
    running = Haproxy(paths).running()
    if running is None:
        return Reaped()
    if running.digest is None or running.digest != engine.digest_in(text):
        return Reaped(old_workers=old_workers(paths))
    ended, parked = 0, tuple[str, ...]()
    if _due(text, running.servers):
        ended, parked = _reap_left(paths, text, rate, deadline)
    workers = old_workers(paths)
    stranded = _reap_stranded(paths, workers, running.servers, rate, deadline)
    return Reaped(ended, stranded, parked, old_workers(paths) if stranded else workers)


def _due(text: str, actual: tuple[Server, ...]) -> list[Server]:
    return [each for each in live.unwanted(text, actual) if each.since >= DRAIN_SECONDS]


def _reap_left(paths: Paths, text: str, rate: int, deadline: Deadline) -> tuple[int, tuple[str, ...]]:
    """End the sessions of servers that left long ago, and park those without. Not while an apply is under way:
    it may be taking one of them back."""
    admin = Socket(paths.haproxy_socket)
    try:
        with files.lock(Path(paths.state_dir) / "lock", patience=0.0):
            if files.read(Path(paths.haproxy_cfg)) != text.encode():
                return 0, ()
            due = _due(text, adjust.servers(admin))
            names = {(each.backend, each.name) for each in due}
            ended = end(admin, "", _on(names), rate, deadline)
            return ended, _park(admin, due)
    except ApplyError:
        return 0, ()


def _reap_stranded(
    paths: Paths, workers: Iterable[OldWorker], actual: tuple[Server, ...], rate: int, deadline: Deadline
) -> int:
    """End the sessions of old workers on dead servers: their checks stopped when they were replaced, so it is
    the new worker that knows."""
    master = Socket(paths.haproxy_master_socket)
    settled = _age(master) >= DRAIN_SECONDS
    ended = 0
    for worker in workers:
        if worker.sessions:
            prefix = f"@!{worker.pid} "
            dead = _dead(adjust.servers(master, prefix), actual, settled=settled)
            ended += end(master, prefix, _on(dead), rate, deadline)
    return ended


def old_workers(paths: Paths) -> tuple[OldWorker, ...]:
    """The workers of earlier configurations, which live while they have sessions. EngineError."""
    master = Socket(paths.haproxy_master_socket)
    listed = master.ask("show proc", ASK_SECONDS).partition("# old workers")[2].partition("# programs")[0]
    return tuple(
        OldWorker(pid, _seconds(found), len(sessions(master, f"@!{pid} ")))
        for found in _WORKER.finditer(listed)
        for pid in [int(found.group(1))]
    )


def _on(servers: Set[tuple[str, str]]) -> Callable[[tuple[Session, ...]], list[Session]]:
    """Those on these servers, by (backend, name), shuffled."""

    def choose(listed: tuple[Session, ...]) -> list[Session]:
        found = [each for each in listed if (each.backend, each.server) in servers]
        random.shuffle(found)
        return found

    return choose


def _park(admin: Socket, due: Iterable[Server]) -> tuple[str, ...]:
    """Put those in MAINT that carry no session any more."""
    busy = {(each.backend, each.server) for each in sessions(admin)}
    parked = []
    for each in due:
        if (each.backend, each.name) not in busy:
            command = Command(each.backend, each.name, "state maint")
            reply = admin.ask(str(command), ASK_SECONDS)
            if not command.accepted(reply):
                raise EngineError(f"haproxy answers `{command}` with: {reply.strip()}")
            parked.append(f"{each.backend}/{each.name}")
    return tuple(parked)


def _dead(theirs: Iterable[Server], actual: Iterable[Server], *, settled: bool) -> frozenset[tuple[str, str]]:
    """The servers of an old worker, by (backend, name), whose address is down in every pool of the new one.

    An apiserver that fails its HTTP check but takes connections is up in `SERVICE.open`, and may well carry a
    watch on. An address that is in no pool any more counts once the reload is `settled`.
    """
    known = {each.endpoint: False for each in actual if not each.parked}
    known |= {each.endpoint: True for each in actual if each.up and not each.parked}
    return frozenset((each.backend, each.name) for each in theirs if not known.get(each.endpoint, not settled))


def _age(master: Socket) -> int:
    """Seconds since the last reload: the age of the worker of now."""
    listed = master.ask("show proc", ASK_SECONDS).partition("# old workers")[0]
    found = _WORKER.search(listed)
    return _seconds(found) if found else 0


def _seconds(worker: re.Match[str]) -> int:
    days, hours, minutes, seconds = (int(worker.group(n) or 0) for n in range(2, 6))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
