"""Watches of the apiserver, idle and busy: when does each learn that its connection is dead?"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass

from lbha.lab import http1
from lbha.lab.records import Watch

RETRY = 0.05
"""Seconds before a watch that could not connect tries again."""

_KEEPALIVE = 30
"""Seconds between TCP keepalives, as client-go's dialer sets them (net.Dialer.KeepAlive)."""

_TOGETHER = 32
"""How many connect at once in the beginning: thousands of TLS handshakes at once would all time out. Those that
come back do not wait for each other."""

_PROBE_WAIT = 1.0
_PATH = "/api/v1/namespaces?watch=true"

BUSY = 0.25
"""Seconds between the events of a busy watch."""
_DEAD = (OSError, EOFError, ValueError)


@dataclass(slots=True)
class _Stream:
    writer: asyncio.StreamWriter
    server: str | None
    """The address of the stand-in that carries this watch; a real apiserver does not tell."""


class Watches:
    """A number of watches through one address, the first `idle` of them idle; each that learns of its death
    reconnects at once, and gives an attempt up after `patience` (s)."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        idle: int,
        busy: int,
        emit: Callable[[Watch], None],
        patience: float,
    ) -> None:
        self._host, self._port, self._tls, self._emit = host, port, tls, emit
        self._idle, self._patience = idle, patience
        self._streams: dict[int, _Stream] = {}
        self._reporting = True
        self._opening = asyncio.Semaphore(_TOGETHER)
        self._tasks = [asyncio.create_task(self._keep(index)) for index in range(idle + busy)]

    @property
    def connected(self) -> int:
        """How many believe that they are connected."""
        return len(self._streams)

    async def unaware(self, alive: Callable[[str], asyncio.Future[bool]]) -> tuple[int, int]:
        """How many, idle and busy, sit on a dead connection without knowing. It wakes them, so call it last.

        Each sends two bytes that HTTP lets a server ignore: a path that is dead resets the connection or
        never acknowledges them. `alive` says whether the apiserver at an address answers when asked
        directly, for a watch can also be dead behind a living haproxy.
        """
        self._reporting = False
        before = dict(self._streams)
        servers = sorted({stream.server for stream in before.values() if stream.server})
        answers = dict(zip(servers, await asyncio.gather(*map(alive, servers)), strict=True))
        for stream in before.values():
            stream.writer.write(b"\r\n")
        await asyncio.sleep(_PROBE_WAIT)
        dead = [
            index
            for index, stream in before.items()
            if self._streams.get(index) is not stream
            or _unacknowledged(stream.writer) > 0
            or not answers.get(stream.server or "", True)
        ]
        idle = sum(index < self._idle for index in dead)
        return idle, len(dead) - idle

    def close(self) -> None:
        """End them all."""
        self._reporting = False
        for task in self._tasks:
            task.cancel()

    async def _keep(self, index: int) -> None:
        async with self._opening:
            reader, stream = await self._insist(index)
        while True:
            try:
                self._streams[index] = stream
                self._tell(index, connected=True)
                while await http1.read_chunk(reader):
                    pass
            except _DEAD:
                pass
            finally:
                del self._streams[index]
                stream.writer.transport.abort()
            self._tell(index, connected=False)
            reader, stream = await self._insist(index)

    async def _insist(self, index: int) -> tuple[asyncio.StreamReader, _Stream]:
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    return await self._connect(index >= self._idle)
            except _DEAD:
                await asyncio.sleep(RETRY)

    async def _connect(self, busy: bool) -> tuple[asyncio.StreamReader, _Stream]:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            link: socket.socket = writer.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)
            path = f"{_PATH}&interval={BUSY}" if busy else _PATH
            writer.write(http1.request("GET", path, self._host))
            status, _ = await http1.read_head(reader)
            if status != 200:
                raise ValueError(f"status {status}")
            return reader, _Stream(writer, _server(await http1.read_chunk(reader)))
        except BaseException:
            writer.transport.abort()
            raise

    def _tell(self, index: int, *, connected: bool) -> None:
        if self._reporting:
            now = asyncio.get_running_loop().time()
            self._emit(Watch(index, now, connected, index >= self._idle))


def _server(event: bytes) -> str | None:
    try:
        address = json.loads(event)["object"]["metadata"]["annotations"]["lbha.lab/stand-in"]
    except (ValueError, LookupError, TypeError):
        return None
    return str(address)


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Bytes that the kernel has sent or holds and the peer's kernel has not acknowledged."""
    link: socket.socket = writer.get_extra_info("socket")
    try:
        return int(struct.unpack("i", fcntl.ioctl(link.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except (OSError, ValueError):
        return 1
