"""A look at each apiserver and etcd member as haproxy's checks have it: TLS, one GET, its certificate."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lbha.discovery.endpoints import one_line
from lbha.model import Endpoint, Kind, Pools, Service, Tls

TIMEOUT = 1.2
"""Seconds for one look; an etcd without a leader takes 1.0 s to answer."""

AT_ONCE = 16
MOST = 64
"""Backends that are looked at at the same time, and in all: a control plane has less."""

_MAX_ANSWER = 16 << 10

PATHS = {Kind.KUBE_APISERVER: "/readyz", Kind.ETCD: "/health?exclude=NOSPACE"}


@dataclass(frozen=True, slots=True)
class Served:
    """What one backend answered. `problem`: why there is no answer; `distrusted`: why the authority of
    lbha.toml does not vouch for its certificate; `certificate`: what it showed (DER); `date`: HTTP's, when our
    clock said `asked_at`; `tls`, `anonymous`: it was asked over TLS, without a client certificate."""

    service: str
    kind: Kind
    endpoint: Endpoint
    problem: str | None = None
    distrusted: str | None = None
    certificate: bytes | None = None
    status: int | None = None
    said: str = ""
    date: str = ""
    asked_at: float = 0.0
    tls: bool = True
    anonymous: bool = True


def look_at_all(services: Iterable[Service], pools: Pools) -> tuple[Served, ...]:
    """Every backend of the services that speak HTTP to haproxy's checks."""
    targets = [
        (service, backend.endpoint)
        for service in services
        if service.kind in PATHS
        for backend in pools[service.name].backends
    ]
    if not targets:
        return ()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda each: look(*each), targets[:MOST]))


def look(service: Service, endpoint: Endpoint) -> Served:
    """One backend; never raises for what a backend does."""
    end = time.monotonic() + TIMEOUT
    tls = service.tls
    asked = Served(
        service.name,
        service.kind,
        endpoint,
        tls=service.kind is Kind.KUBE_APISERVER or tls is not None,
        anonymous=tls is None or tls.cert is None,
    )
    try:
        if not asked.tls:
            with socket.create_connection((endpoint.address, endpoint.port), TIMEOUT) as wire:
                return _ask(asked, wire, end)
        try:
            return _over_tls(asked, _context(tls, verify=bool(tls and tls.ca)), end)
        except ssl.SSLCertVerificationError as error:
            asked = replace(asked, distrusted=error.verify_message)
        return _over_tls(asked, _context(tls, verify=False), end)
    except (OSError, ValueError) as error:  # also ssl.SSLError, TimeoutError; a file of [tls] that is missing
        return replace(asked, problem=_reason(error))


def _context(tls: Tls | None, *, verify: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if tls and tls.ca and verify:
        context.load_verify_locations(tls.ca)
    if tls and tls.cert:
        context.load_cert_chain(tls.cert, tls.key, password="none")
    return context


def _over_tls(asked: Served, context: ssl.SSLContext, end: float) -> Served:
    where = asked.endpoint.address, asked.endpoint.port
    with socket.create_connection(where, _left(end)) as plain:
        plain.settimeout(_left(end))
        with context.wrap_socket(plain) as wire:
            return _ask(replace(asked, certificate=wire.getpeercert(binary_form=True)), wire, end)


def _ask(asked: Served, wire: socket.socket, end: float) -> Served:
    asked_at, answer = time.time(), b""
    problem = "it speaks no HTTP"
    request = f"GET {PATHS[asked.kind]} HTTP/1.0\r\nHost: {asked.endpoint}\r\nUser-Agent: lbha-doctor\r\n\r\n"
    try:
        wire.settimeout(_left(end))
        wire.sendall(request.encode())
        while len(answer) < _MAX_ANSWER and (part := wire.recv(4096)):
            answer += part
            wire.settimeout(_left(end))
    except OSError as error:  # TLS 1.3: that a client certificate is missing is told only here
        problem = _reason(error)
    found = answer_of(answer)
    if found is None:
        return replace(asked, problem=problem)
    status, date, said = found
    return replace(asked, status=status, date=date, said=said, asked_at=asked_at)


def answer_of(answer: bytes) -> tuple[int, str, str] | None:
    """Status, Date and the beginning of the body; None when it is no HTTP. Pure."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        return None
    date = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("date:")), "")
    return int(words[1]), date, one_line(body[:200].decode("utf-8", "replace"))


def _reason(error: Exception) -> str:
    words = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return one_line(str(words)).lower().replace("_", " ")


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())
