"""A stand-in for kube-apiserver, for machines without the real binary. It calls itself a stand-in everywhere.

It behaves like the real one where a load balancer can tell: TLS with optional client certificates, `/readyz`,
`/livez` and `/healthz` that fail while etcd cannot be read (2 s, as `--etcd-readycheck-timeout`), `/version`
for everybody, a watch of namespaces and the leases of kube-system for those with a certificate. etcd is read
over one kept connection; unlike the real client, which holds on to a silent one, a read that fails drops it.
With `--host NAME` it also plays that node's controller-manager and scheduler (`lbha.lab.leases`).

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lbha.lab import http1, leases
from lbha.lab.etcd_gateway import Etcd

EVERYTHING = "everything"
READINESS = "/readyz"
"""What the error file may say."""

_HEALTH = ("/healthz", "/livez", "/readyz")
_WATCH = "/api/v1/namespaces"
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
            500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
_LONGEST_HEAD = 65536
ACCEPTED = "stand-in: accepted {count} connections in the second from {at}"
"""Printed for each second (CLOCK_MONOTONIC) with more of them than checks make."""

_MANY = 20


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
    return _status(
        404, "NotFound", "this is a stand-in: it knows /version, health, leases and a watch of namespaces"
    )


def _status(code: int, reason: str, message: str) -> Answer:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return Answer(code, {**body, "message": message})


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
        self,
        etcd: Etcd,
        leases: Etcd,
        address: str,
        broken: Callable[[str], bool],
        accepted: Callable[[], None],
    ) -> None:
        self._etcd, self._leases, self._address = etcd, leases, address
        self._broken, self._accepted = broken, accepted
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
        elif known and request.path.startswith(leases.PATH) and request.method == "GET":
            self._busy = asyncio.create_task(self._lease(request))
        elif known and request.path == _WATCH and request.query.get("watch", [""])[0] in ("true", "1"):
            self._busy = asyncio.create_task(self._watch(request))
        else:
            self._send(request, plain(request, known))

    async def _health(self, request: Request) -> None:
        answer = health(request.path[1:], await self._etcd.problem())
        self._busy = None
        self._send(request, answer)

    async def _lease(self, request: Request) -> None:
        try:
            found, _ = await leases.read(self._leases, request.path.removeprefix(leases.PATH))
        except (OSError, EOFError, ValueError) as error:
            answer = _status(503, "ServiceUnavailable", f"etcd: {error or type(error).__name__}")
        else:
            answer = Answer(200, found) if found else _status(404, "NotFound", "there is no such lease")
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
    etcd_tls = http1.client_tls(args.ca, args.etcd_cert, args.etcd_key)
    # A connection of its own for leases: readiness must not wait for them.
    etcd, lease_store = Etcd(args.etcd, etcd_tls), Etcd(args.etcd, etcd_tls)
    tls = server_tls(args.cert, args.key, args.ca)
    loop, accepts = asyncio.get_running_loop(), Accepts()
    family = socket.AF_INET6 if ":" in args.address else socket.AF_INET
    server = await loop.create_server(
        lambda: Connection(etcd, lease_store, args.address, partial(_broken, args.error_file), accepts.one),
        args.address,
        args.port,
        family=family,
        backlog=1024,
        ssl=tls,
    )
    print(f"stand-in for kube-apiserver on {args.address} port {args.port}, etcd {args.etcd}", flush=True)
    if args.host:
        await asyncio.gather(server.serve_forever(), leases.serve(lease_store, args.host, tls))
    await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A stand-in for kube-apiserver.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--host", help="whose controller-manager and scheduler it plays; nobody's without it")
    parser.add_argument("--etcd", required=True, help="https://HOST:PORT[,…]")
    for name in ("cert", "key", "ca", "etcd-cert", "etcd-key", "error-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
