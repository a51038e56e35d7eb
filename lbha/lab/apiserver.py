"""A stand-in for kube-apiserver, for machines without the real binary. It calls itself a stand-in everywhere.

It behaves like the real one where a load balancer can tell: TLS with optional client certificates, `/readyz`,
`/livez` and `/healthz` that fail while etcd cannot be read (2 s, as `--etcd-readycheck-timeout`), `/version`
for everybody, and a watch of namespaces for those with a certificate. etcd is read over one kept connection;
unlike the real client, which holds on to a silent connection, a read that fails drops it.

`python -m lbha.lab.apiserver --address A --port 6443 --cert F --key F --ca F --etcd https://VIP:2379[,…]
--etcd-cert F --etcd-key F --error-file F`. While the error file says `everything`, that answers 500; with
`/readyz` in it only that does, as while a real one shuts down. SIGTERM ends it at once: the kernel closes its
connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lbha.lab import http1

ETCD_TIMEOUT = 2.0
"""Seconds that one readiness read of etcd may take."""

REUSE = 0.5
"""Seconds for which its result answers further probes, so that many load balancers cost one read."""

EVERYTHING = "everything"
READINESS = "/readyz"
"""What the error file may say."""

_HEALTH = ("/healthz", "/livez", "/readyz")
_WATCH = "/api/v1/namespaces"
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
            500: "Internal Server Error"}  # fmt: skip
_LONGEST_HEAD = 65536
ACCEPTED = "stand-in: accepted {count} connections in the second from {at}"
"""Printed for each second (CLOCK_MONOTONIC) with more of them than checks make."""

_MANY = 20
_READ = json.dumps({"key": b64encode(b"/registry/health").decode()}).encode()


@dataclass(frozen=True, slots=True)
class Request:
    """The part of a request that matters here. `close`: the client wants the connection ended after it."""

    method: str
    path: str
    query: dict[str, list[str]]
    close: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body; a `str` body is plain text, anything else becomes JSON."""

    status: int
    body: object


def parse(head: bytes) -> Request | None:
    """A request's head without its empty line; None when it is not HTTP/1."""
    first, _, rest = head.decode("latin-1").partition("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return None
    url = urlsplit(parts[1])
    close = parts[2] == "HTTP/1.0" or "connection: close" in rest.lower()
    return Request(parts[0], url.path, parse_qs(url.query), close)


def health(check: str, problem: str | None) -> Answer:
    """What `/readyz` and the like say; the reason is withheld as the real one does (it is logged)."""
    if problem is None:
        return Answer(200, "ok")
    return Answer(500, f"[+]ping ok\n[-]etcd failed: reason withheld\n{check} check failed\n")


def plain(request: Request, known: bool) -> Answer:
    """The answer to anything but health and a watch. `known`: the client showed a certificate."""
    if request.method not in ("GET", "HEAD"):
        return _status(405, "MethodNotAllowed", "this is a stand-in: it only answers GET")
    if request.path == "/version":
        return Answer(200, {"major": "1", "minor": "0", "gitVersion": "stand-in", "platform": "linux"})
    if not known:
        return _status(403, "Forbidden", f'forbidden: User "system:anonymous" cannot get path "{request.path}"')
    return _status(404, "NotFound", "this is a stand-in: it knows /version, health and a watch of namespaces")


def _status(code: int, reason: str, message: str) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return Answer(code, {**body, "message": message})


class Etcd:
    """Whether etcd can be read: one linearizable read at a time over one kept connection.

    `urls` lists its endpoints with commas; the next one is tried when one fails.
    """

    def __init__(self, urls: str, tls: ssl.SSLContext) -> None:
        parts = [urlsplit(url) for url in urls.split(",")]
        self._endpoints = deque((part.hostname or "", part.port or 2379) for part in parts)
        self._tls = tls
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._checked = -REUSE
        self._problem: str | None = "not asked yet"

    async def problem(self) -> str | None:
        """None when etcd was readable within the last moment, else why not."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if clock() - self._checked >= REUSE:
                before, self._problem = self._problem, await self._read()
                self._checked = clock()
                if before != self._problem:
                    print(f"stand-in: etcd: {self._problem or 'readable'}", flush=True)
            return self._problem

    async def _read(self) -> str | None:
        attempts = len(self._endpoints) + (self._link is not None)  # a kept connection may have died unnoticed
        try:
            async with asyncio.timeout(ETCD_TIMEOUT):
                while True:
                    attempts -= 1
                    try:
                        return await self._exchange()
                    except (OSError, EOFError):
                        self._drop()
                        if not attempts:
                            raise
        except asyncio.CancelledError:
            # The prober gave up, after 2 s as well: kept, a dead connection would be asked again for ever.
            self._drop()
            raise
        except TimeoutError:
            self._drop()
            return f"no answer within {ETCD_TIMEOUT:g} s"
        except (OSError, EOFError, ValueError) as error:
            self._drop()
            return str(error) or type(error).__name__

    async def _exchange(self) -> str | None:
        host, port = self._endpoints[0]
        if self._link is None:
            self._endpoints.rotate(-1)
            self._link = await asyncio.open_connection(host, port, ssl=self._tls)
        reader, writer = self._link
        writer.write(http1.request("POST", "/v3/kv/range", host, _READ))
        reply = await http1.read_reply(reader)
        if not reply.reusable:
            self._drop()
        return (
            None
            if reply.status == 200
            else f"status {reply.status}: {reply.body[:200].decode(errors='replace')}"
        )

    def _drop(self) -> None:
        if self._link is not None:
            self._link[1].transport.abort()
            self._link = None


class Accepts:
    """Counts connections, and prints how many there were in each second with many."""

    def __init__(self) -> None:
        self._count, self._since = 0, 0.0

    def one(self) -> None:
        """One more."""
        if self._count == 0:
            loop = asyncio.get_running_loop()
            self._since = loop.time()
            loop.call_later(1.0, self._tell)
        self._count += 1

    def _tell(self) -> None:
        if self._count > _MANY:
            print(ACCEPTED.format(count=self._count, at=f"{self._since:.2f}"), flush=True)
        self._count = 0


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, the last of which may be a watch."""

    def __init__(
        self, etcd: Etcd, address: str, broken: Callable[[str], bool], accepted: Callable[[], None]
    ) -> None:
        self._etcd, self._address, self._broken, self._accepted = etcd, address, broken, accepted
        self._received = b""
        self._busy: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._accepted()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy is not None:
            self._busy.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._busy is None:
            self._next()

    def _next(self) -> None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(head) > _LONGEST_HEAD:
                self._transport.abort()
            return
        self._received = rest
        request = parse(head)
        known = bool(self._transport.get_extra_info("peercert"))
        if request is None:
            self._send(Request("GET", "", {}, True), _status(400, "BadRequest", "not HTTP/1"))
        elif self._broken(request.path):
            self._send(request, _status(500, "InternalError", "this is a stand-in with an injected error"))
        elif request.path in _HEALTH:
            self._busy = asyncio.create_task(self._health(request))
        elif known and request.path == _WATCH and request.query.get("watch", [""])[0] in ("true", "1"):
            self._busy = asyncio.create_task(self._watch(request))
        else:
            self._send(request, plain(request, known))

    async def _health(self, request: Request) -> None:
        answer = health(request.path[1:], await self._etcd.problem())
        self._busy = None
        self._send(request, answer)

    async def _watch(self, request: Request) -> None:
        """One event at once, then silence; with `interval` (seconds) one more each time it has passed.

        The event names this server's address, so that a client can tell who carries its watch.
        """
        interval = float(request.query.get("interval", ["0"])[0])
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        metadata = {"name": "default", "annotations": {"lbha.lab/stand-in": self._address}}
        event = {"type": "ADDED", "object": {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata}}
        line = json.dumps(event).encode() + b"\n"
        chunk = b"%x\r\n%s\r\n" % (len(line), line)
        self._transport.write(head.encode() + chunk)
        while interval > 0:
            await asyncio.sleep(interval)
            self._transport.write(chunk)
        await asyncio.Event().wait()

    def _send(self, request: Request, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        text = isinstance(answer.body, str)
        body = str(answer.body).encode() if text else json.dumps(answer.body).encode()
        head = (
            f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
            f"Content-Type: {'text/plain; charset=utf-8' if text else 'application/json'}\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"{'Connection: close' if request.close else 'Cache-Control: no-cache, private'}\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if request.method == "HEAD" else body))
        # A body is never read, so what follows a refused POST would not be a request.
        if request.close or answer.status == 405:
            self._transport.close()
        elif self._received:
            self._next()


def server_tls(cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    """TLS that asks for a client certificate and takes none, as the real one does. No resumption tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return context


def _broken(error_file: Path, path: str) -> bool:
    """Whether that path answers 500 now."""
    try:
        what = error_file.read_text()
    except FileNotFoundError:
        return False
    return what in (EVERYTHING, path)


async def serve(args: argparse.Namespace) -> None:
    """Serve until killed."""
    etcd = Etcd(args.etcd, http1.client_tls(args.ca, args.etcd_cert, args.etcd_key))
    loop, accepts = asyncio.get_running_loop(), Accepts()
    family = socket.AF_INET6 if ":" in args.address else socket.AF_INET
    server = await loop.create_server(
        lambda: Connection(etcd, args.address, partial(_broken, args.error_file), accepts.one),
        args.address,
        args.port,
        family=family,
        backlog=1024,
        ssl=server_tls(args.cert, args.key, args.ca),
    )
    print(f"stand-in for kube-apiserver on {args.address} port {args.port}, etcd {args.etcd}", flush=True)
    await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A stand-in for kube-apiserver.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--etcd", required=True, help="https://HOST:PORT[,…]")
    for name in ("cert", "key", "ca", "etcd-cert", "etcd-key", "error-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
