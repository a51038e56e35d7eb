"""haproxy, watched through a standing connection to its admin socket.

The connection's end is the crash signal: at once, and without asking. What looks the same and is not: a
reload (the old worker says `Stopping: 1`, the path leads to the new one). A frozen haproxy keeps the
connection and does not answer in time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from lbha.facts import HaproxyFacts
from lbha.haproxy_stat import live_servers, servers
from lbha.timing import HAPROXY_DEADLINE as DEADLINE
from lbha.timing import HAPROXY_INTERVAL as INTERVAL

LATE = 0.05
"""Seconds: a loop that woke up so much too late was starved of CPU itself, and blames nobody."""

_RECONNECT = 0.05
_SERVERS_EVERY = 1.0
_PER_SERVER = 0.001
"""Seconds of pause a server between two looks at all servers: ten thousand are read each 10 s."""

_PROMPT = b"\n> "
_INFO, _BACKENDS, _SERVERS = "show info", "show stat -1 2 -1", "show stat -1 4 -1"


class _Talk(asyncio.Protocol):
    """One connection in interactive mode: the answer to every command ends with the prompt."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._prompts = 0
        self.answer: asyncio.Future[list[str]] | None = None
        self.ended = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(_PROMPT) or not self.answer or self.answer.done():
            return
        parts = bytes(self._buffer).decode("ascii", "replace").split(_PROMPT.decode())
        if len(parts) > self._prompts:
            self.answer.set_result(parts[:-1])
            self._buffer.clear()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self.answer and not self.answer.done():
            self.answer.set_exception(ConnectionResetError())

    def ask(self, *commands: str) -> asyncio.Future[list[str]]:
        """Send; the future is an answer for each, or ConnectionResetError when the connection ends first."""
        assert self.transport is not None
        self.answer = asyncio.get_running_loop().create_future()
        self._prompts = len(commands)
        self.transport.write(";".join(commands).encode() + b"\n")
        return self.answer


class Lag:
    """How late the loop was at worst (s): in this minute and the one before."""

    def __init__(self) -> None:
        self._minute, self._now, self._before = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """One more time that it was late."""
        self._turn()
        self._now = max(self._now, seconds)

    def worst(self) -> float:
        """The worst."""
        self._turn()
        return max(self._now, self._before)

    def _turn(self) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._before = self._now if minute == self._minute + 1 else 0.0
            self._minute, self._now = minute, 0.0


class _Gone(Exception):
    """Nobody is there; the text says why."""


class _Starved(Exception):
    """We came too late ourselves to blame anybody."""


class HaproxyWatch:
    """Watches until cancelled. `facts` is the latest word; `changed` is called when it may matter.

    `checked` is told how long each answer took (s). `services` are the names of the pools.
    """

    def __init__(
        self,
        path: str,
        services: Iterable[str],
        changed: Callable[[], None],
        checked: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.facts = HaproxyFacts()
        self.lag = Lag()
        self._path, self._services = path, tuple(services)
        self._changed, self._checked = changed, checked
        self._look_at_servers = 0.0

    def look_at_servers(self) -> None:
        """Read all servers at the next question: something was done to them."""
        self._look_at_servers = 0.0

    async def run(self) -> None:
        """Connect, ask, connect again; for ever."""
        while True:
            try:
                talk = await self._connect()
            except _Starved:
                continue
            except _Gone as gone:
                self._say(HaproxyFacts(str(gone)))
                await asyncio.sleep(_RECONNECT)
                continue
            try:
                await self._converse(talk)
            except ConnectionError:
                pass  # The next attempt to connect tells a crash from a reload.
            finally:
                if talk.transport:
                    talk.transport.abort()

    async def _connect(self) -> _Talk:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(DEADLINE):
                _, talk = await loop.create_unix_connection(_Talk, self._path)
                await talk.ask("prompt")
        except FileNotFoundError:
            raise _Gone(f"haproxy is down: no socket {self._path}") from None
        except ConnectionError:
            raise _Gone(f"haproxy is down: nobody listens on {self._path}") from None
        except TimeoutError:
            if loop.time() - began > DEADLINE + LATE:
                raise _Starved from None
            raise _Gone(f"haproxy does not answer within {DEADLINE:g} s (frozen?)") from None
        except OSError as error:
            raise _Gone(f"{self._path}: {error.strerror or error}") from None
        return talk

    async def _converse(self, talk: _Talk) -> None:
        """Until the connection ends (ConnectionError) or its haproxy stops in favour of another."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            asked = loop.time()
            about, table = await self._in_time(talk.ask(_INFO, _BACKENDS))
            self._checked(loop.time() - asked)
            info = dict(row.partition(": ")[::2] for row in about.split("\n"))
            if info.get("Stopping") != "0":
                return
            pid = int(info["Pid"]) if info.get("Pid", "").isdigit() else None
            live = live_servers(table, self._services)
            all_servers = self.facts.servers
            if pid != self.facts.pid or live != self.facts.live or loop.time() >= self._look_at_servers:
                (rows,) = await self._in_time(talk.ask(_SERVERS))
                all_servers = servers(rows, self._services, time.time())
                self._look_at_servers = loop.time() + max(_SERVERS_EVERY, _PER_SERVER * len(all_servers))
            self._say(HaproxyFacts(None, pid, live, all_servers))
            due = max(due + INTERVAL, loop.time())
            # Either the next question is due, or the connection ends.
            await asyncio.wait({talk.ended}, timeout=due - loop.time())
            self.lag.add(loop.time() - due)
            if talk.ended.done():
                raise ConnectionResetError

    async def _in_time(self, answer: asyncio.Future[list[str]]) -> list[str]:
        """The answer. When it does not come in time, say so, and go on waiting."""
        loop = asyncio.get_running_loop()
        patient = True
        while not answer.done():
            before = loop.time()
            await asyncio.wait({answer}, timeout=DEADLINE)
            late = loop.time() - before - DEADLINE
            self.lag.add(late)
            if answer.done():
                break
            if late > LATE and patient:
                patient = False  # We were starved ourselves: once more, with a deadline of its own.
                continue
            problem = f"haproxy has not answered for {DEADLINE:g} s (frozen?)"
            self._say(HaproxyFacts(problem, self.facts.pid, self.facts.live, self.facts.servers))
        return answer.result()

    def _say(self, facts: HaproxyFacts) -> None:
        self.facts = facts
        self._changed()
