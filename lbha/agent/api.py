"""What the agent answers: to root on its UNIX socket, and to the other agents over mutual TLS.

    GET /status   GET /events?n=50   GET /metrics   POST /drain   POST /undrain   POST /backend     agent.sock
    GET /report   GET /connections?since=GENERATION   GET /metrics                                  TLS

Errors are JSON, {"error": "one line"}: 400 a mistake in the request, 409 refused, 404 and 405 as usual.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from lbha.agent.client import SOCKET
from lbha.agent.http import Answer, Handler, Request, Server
from lbha.agent.metrics import CONTENT_TYPE, Counters, exposition
from lbha.agent.peer_tls import Certificates
from lbha.discovery.endpoints import one_line
from lbha.errors import ConfigError, LbhaError
from lbha.facts import Report, Status
from lbha.model import Cluster, Endpoint, Node

MAX_EVENTS = 1000
LOOK = 20.0
"""Seconds between looks at the certificates, and between attempts to listen."""

_YEAR = 366 * 86400.0

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class EventLog(Protocol):
    """The events that the agent keeps."""

    def last(self, n: int, /) -> Sequence[Any]:
        """The newest `n` events, oldest first, as what msgspec can encode."""
        ...


class Agent(Protocol):
    """What is asked of the agent, on its event loop. All that refuse raise LbhaError."""

    @property
    def counters(self) -> Counters: ...

    @property
    def events(self) -> EventLog: ...

    def status(self) -> Status: ...

    def report(self) -> Report: ...

    async def connections(self, since: str) -> bytes: ...

    async def drain(self, until: float | None, reason: str, force: bool, until_boot: bool) -> None: ...

    async def undrain(self) -> None: ...

    async def set_server(self, service: str, server: str, state: str, force: bool) -> str: ...


class DrainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """POST /drain. `seconds` ("for" on the wire): None for an open end."""

    seconds: float | None = msgspec.field(default=None, name="for")
    reason: str = ""
    force: bool = False
    until_boot: bool = False


class BackendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """POST /backend. `state`: drain, maint or ready."""

    service: str
    server: str
    state: str
    force: bool = False


class Said(msgspec.Struct):
    """What a change of one server came to, in one line."""

    text: str


_Body = TypeVar("_Body")
_Routes = Mapping[tuple[str, str], Callable[[Request], Awaitable[Answer]]]


class Local:
    """The UNIX socket: created, for root alone, before `run` serves it."""

    def __init__(self, agent: Agent, run_dir: str) -> None:
        self._agent = agent
        handler = _handler(
            {
                ("GET", "/status"): self._status,
                ("GET", "/events"): self._events,
                ("GET", "/metrics"): lambda _: _metrics(agent),
                ("POST", "/drain"): self._drain,
                ("POST", "/undrain"): self._undrain,
                ("POST", "/backend"): self._backend,
            }
        )
        self._server = Server(unix_listener(Path(run_dir) / SOCKET), handler)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._server.run()

    async def _status(self, _: Request) -> Answer:
        return _json(self._agent.status())

    async def _events(self, request: Request) -> Answer:
        count = request.query.get("n", "50")
        if not (count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= MAX_EVENTS):
            raise ConfigError(f"n is a whole number from 1 to {MAX_EVENTS}")
        return _json(self._agent.events.last(int(count)))

    async def _drain(self, request: Request) -> Answer:
        asked = _body(request, DrainRequest)
        if asked.seconds is not None and not 0 < asked.seconds <= _YEAR:
            raise ConfigError("for is a number of seconds, more than 0 and at most a year")
        until = None if asked.seconds is None else time.time() + asked.seconds
        await self._agent.drain(until, one_line(asked.reason), asked.force, asked.until_boot)
        return _json(self._agent.status())

    async def _undrain(self, _: Request) -> Answer:
        await self._agent.undrain()
        return _json(self._agent.status())

    async def _backend(self, request: Request) -> Answer:
        asked = _body(request, BackendRequest)
        text = await self._agent.set_server(asked.service, asked.server, asked.state, asked.force)
        return _json(Said(text))


class Remote:
    """TLS on the node's own first address, as long as there are certificates."""

    def __init__(self, agent: Agent, cluster: Cluster, node: Node, certificates: Certificates) -> None:
        self._at = Endpoint(node.address, cluster.peers.port)
        self._certificates = certificates
        self._agent = agent
        self._handler = _handler(
            {
                ("GET", "/report"): self._report,
                ("GET", "/connections"): self._connections,
                ("GET", "/metrics"): lambda _: _metrics(agent),
            }
        )

    async def run(self) -> None:
        """Serve until cancelled; wait for certificates, and for the address, as long as they are missing."""
        told = ""
        while True:
            if self._certificates.contexts is not None:
                try:
                    listener = tcp_listener(self._at)
                except LbhaError as error:
                    if str(error) != told:
                        told = str(error)
                        _log.warning("peers cannot reach this agent: %s", told)
                else:
                    await Server(listener, self._handler, self._context).run()
            await asyncio.sleep(LOOK)

    def _context(self) -> ssl.SSLContext:
        assert self._certificates.contexts is not None
        return self._certificates.contexts.server

    async def _report(self, _: Request) -> Answer:
        return _json(self._agent.report())

    async def _connections(self, request: Request) -> Answer:
        body = await self._agent.connections(request.query.get("since", ""))
        return Answer(body, kind="application/octet-stream")


def unix_listener(path: Path) -> socket.socket:
    """A listening socket that only its owner can connect to, in place of one that a dead agent left.

    Nobody can connect before `listen`, and by then the mode is 0600. Raises LbhaError.
    """
    beside = path.with_name(f".{path.name}.new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            if probe.connect_ex(str(path)) in (0, errno.EAGAIN):
                raise LbhaError(f"{path}: another agent answers there; stop it first")
        beside.unlink(missing_ok=True)
        listener.bind(str(beside))
        beside.chmod(0o600)
        listener.listen(64)
        beside.replace(path)
    except OSError as error:
        listener.close()
        raise LbhaError(f"{path}: {error.strerror or error}") from None
    except LbhaError:
        listener.close()
        raise
    return listener


def tcp_listener(at: Endpoint) -> socket.socket:
    """A listening socket on exactly this address. Raises LbhaError."""
    family = socket.AF_INET6 if ":" in at.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((at.address, at.port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise LbhaError(f"cannot listen on {at}: {os.strerror(error.errno or 0)}") from None
    return listener


def _handler(routes: _Routes) -> Handler:
    async def handle(request: Request) -> Answer:
        route = routes.get((request.method, request.path))
        if route is None:
            allowed = [method for method, path in routes if path == request.path]
            if allowed:
                return _error(405, f"{allowed[0]} it", allow=", ".join(allowed))
            return _error(404, f"there is {', '.join(path for _, path in routes)}")
        try:
            return await route(request)
        except ConfigError as error:
            return _error(400, str(error))
        except LbhaError as error:
            return _error(409, str(error))
        except Exception:
            _log.exception("%s %s", request.method, request.path)
            return _error(500, "a fault of the agent; its log has more")

    return handle


async def _metrics(agent: Agent) -> Answer:
    return Answer(exposition(agent.status(), agent.counters), kind=CONTENT_TYPE)


def _body(request: Request, kind: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(request.body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(one_line(str(error))) from None


def _json(value: object) -> Answer:
    return Answer(_encode(value))


def _error(status: int, text: str, allow: str | None = None) -> Answer:
    return Answer(_encode({"error": text}), status, allow=allow)
