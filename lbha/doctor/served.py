"""A look at each apiserver and etcd member as haproxy's checks have it: TLS, one GET, its certificate."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
    clock said `asked_at`."""

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
    plain = service.kind is Kind.ETCD and service.tls is None
    distrusted: str | None = None
    try:
        if plain:
            with socket.create_connection((endpoint.address, endpoint.port), TIMEOUT) as wire:
                return _ask(service, endpoint, wire, None, None, end)
        try:
            context = _context(service.tls, verify=bool(service.tls and service.tls.ca))
        except (OSError, ssl.SSLError) as error:
            return Served(
                service.name, service.kind, endpoint, problem=f"[services.{service.name}.tls]: {error}"
            )
        try:
            return _over_tls(service, endpoint, context, None, end)
        except ssl.SSLCertVerificationError as error:
            distrusted = error.verify_message
        return _over_tls(service, endpoint, _context(service.tls, verify=False), distrusted, end)
    except (OSError, ValueError) as error:  # also ssl.SSLError, TimeoutError
        return Served(service.name, service.kind, endpoint, problem=_reason(error), distrusted=distrusted)


def _context(tls: Tls | None, *, verify: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if tls and tls.ca and verify:
        context.load_verify_locations(tls.ca)
    if tls and tls.cert:
        context.load_cert_chain(tls.cert, tls.key, password="none")
    return context


def _over_tls(
    service: Service, endpoint: Endpoint, context: ssl.SSLContext, distrusted: str | None, end: float
) -> Served:
    with socket.create_connection((endpoint.address, endpoint.port), _left(end)) as plain:
        plain.settimeout(_left(end))
        with context.wrap_socket(plain) as wire:
            return _ask(service, endpoint, wire, wire.getpeercert(binary_form=True), distrusted, end)


def _ask(
    service: Service,
    endpoint: Endpoint,
    wire: socket.socket,
    certificate: bytes | None,
    distrusted: str | None,
    end: float,
) -> Served:
    asked_at, answer = time.time(), b""
    problem = "it speaks no HTTP"
    try:
        wire.settimeout(_left(end))
        path = PATHS[service.kind]
        wire.sendall(f"GET {path} HTTP/1.0\r\nHost: {endpoint}\r\nUser-Agent: lbha-doctor\r\n\r\n".encode())
        while len(answer) < _MAX_ANSWER and (part := wire.recv(4096)):
            answer += part
            wire.settimeout(_left(end))
    except OSError as error:  # TLS 1.3: that a client certificate is missing is told only here
        problem = _reason(error)
    status, date, said = answer_of(answer) or (None, "", "")
    return Served(
        service.name,
        service.kind,
        endpoint,
        problem if status is None else None,
        distrusted,
        certificate,
        status,
        said,
        date,
        asked_at,
    )


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
