"""A small HTTP/1.1 server on asyncio and h11: every size, time and number of connections is bounded.

Not uvicorn: it sets no limit to the time that a TLS handshake or a request's head may take, it cannot exchange
certificates while it runs, and it costs 1.4 MiB more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import h11

MAX_HEAD = 16 << 10
MAX_BODY = 64 << 10
MAX_CONNECTIONS = 32
"""Of each listener. Strangers, who never get through the handshake, cannot keep known ones out."""

HANDSHAKE = 3.0
READ = 5.0
WRITE = 5.0
IDLE = 60.0
"""Seconds: for a TLS handshake, for one whole request from its first byte, for an answer, between requests."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole. Of a query's repeated names the last counts."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back. `allow`: the methods that would do, with 405."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    allow: str | None = None


Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


class Server:
    """Serves a bound, listening, non-blocking socket until cancelled, then closes it and every connection.

    `tls` is asked at each connection, so that new certificates hold from the next one on; None: no TLS.
    """

    def __init__(
        self, listener: socket.socket, handler: Handler, tls: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._tls = tls
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._known: set[asyncio.Task[None]] = set()
        self._told = ""

    async def run(self) -> None:
        """Accept and serve until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, address = await loop.sock_accept(self._listener)
                except OSError as error:  # out of descriptors, or the client has gone again
                    _log.warning("cannot accept a connection: %s", error.strerror)
                    await asyncio.sleep(0.5)
                    continue
                if len(self._strangers) >= MAX_CONNECTIONS:
                    next(iter(self._strangers)).cancel()  # the oldest: a good handshake takes milliseconds
                task = asyncio.create_task(self._connection(connection, address))
                self._strangers[task] = None
                task.add_done_callback(self._forget)
        finally:
            self._listener.close()
            tasks = [*self._strangers, *self._known]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        self._known.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a connection ended: %r", error)

    async def _connection(self, connection: socket.socket, address: Any) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(MAX_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        context = self._tls() if self._tls else None
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE if context else None,
                ssl_shutdown_timeout=1.0 if context else None,
            )
        except OSError as error:  # also a TimeoutError, or an ssl.SSLError
            # The socket is asyncio's, which closes it a moment later. To close it here would hand its number to
            # the next connection, which asyncio would then end in its stead.
            if address:
                self._tell(address[0], error)
            return
        transport.set_write_buffer_limits(0)  # so that `drain` waits until all is sent
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            if self._become_known():
                await self._converse(reader, writer)
            writer.close()
        except OSError:
            transport.abort()
        except BaseException:
            transport.abort()
            raise

    def _tell(self, host: str, error: OSError) -> None:
        """Why a handshake failed, which the client may not be able to see; not over and over."""
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "it was not completed"
        told = f"TLS handshake with {host}: {reason.lower().replace('_', ' ')}"
        if told != self._told:
            self._told = told
            _log.warning("%s", told)

    def _become_known(self) -> bool:
        """The handshake is done. False when too many are known already."""
        task = asyncio.current_task()
        assert task is not None
        self._strangers.pop(task, None)
        if len(self._known) >= MAX_CONNECTIONS:
            return False
        self._known.add(task)
        return True

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests and answers in turn, until the client ends it or asks for something that is not HTTP."""
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        while True:
            try:
                request = await _request(wire, reader)
            except h11.RemoteProtocolError as error:
                await _refuse(wire, writer, error.error_status_hint)
                return
            if request is None:
                return
            await _send(wire, writer, await self._handler(request))
            if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
                return
            wire.start_next_cycle()


async def _request(wire: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The next request, None at the end. Raises TimeoutError, h11.RemoteProtocolError."""
    loop = asyncio.get_running_loop()
    head: h11.Request | None = None
    body = bytearray()
    async with asyncio.timeout(IDLE) as limit:
        begun = False
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(MAX_HEAD))
                if not begun:
                    begun = True
                    limit.reschedule(loop.time() + READ)
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise h11.RemoteProtocolError("too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                path, _, query = head.target.decode("ascii").partition("?")
                return Request(head.method.decode("ascii"), path, dict(parse_qsl(query)), bytes(body))
            else:
                return None


async def _send(wire: h11.Connection, writer: asyncio.StreamWriter, answer: Answer) -> None:
    headers = [("Content-Type", answer.kind), ("Content-Length", str(len(answer.body)))]
    if answer.allow:
        headers.append(("Allow", answer.allow))
    data = (
        (wire.send(h11.Response(status_code=answer.status, headers=headers)) or b"")
        + (wire.send(h11.Data(data=answer.body)) or b"")
        + (wire.send(h11.EndOfMessage()) or b"")
    )
    async with asyncio.timeout(WRITE):
        writer.write(data)
        await writer.drain()


async def _refuse(wire: h11.Connection, writer: asyncio.StreamWriter, status: int) -> None:
    if wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        text = HTTPStatus(status).phrase.encode()
        await _send(wire, writer, Answer(b'{"error":"%s"}' % text, status))
