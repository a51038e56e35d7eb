"""kubernetes: over real TLS, against a stand-in for the apiserver."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lbha import config
from lbha.discovery import discover
from lbha.model import Cluster, Pool

SUBNET = f"127.{os.getpid() >> 8 & 127 | 64}.{os.getpid() & 255}"
LIVE, FROZEN, BLACK_HOLE, REFUSING = (f"{SUBNET}.{host}" for host in (1, 2, 3, 4))
ENDPOINTS = "/api/v1/namespaces/default/endpoints/kubernetes"


def names(pool: Pool) -> list[str]:
    return [backend.name for backend in pool.backends]


def self_signed(directory: Path) -> None:
    """ca.pem with ca.key: a certificate that is its own authority, for the stand-in and for its client."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "ca.key").write_bytes(private)


@dataclass
class StandIn:
    """A stand-in for the apiserver: it wants the token or a client certificate, and gives `answer`."""

    port: int
    directory: Path
    answer: bytes = b""
    token: str = "first"
    requests: list[str] = field(default_factory=list)

    def lists(self, *ready: str, not_ready: tuple[str, ...] = (), ports: Any = None) -> None:
        subset: dict[str, Any] = {"ports": ports or [{"name": "https", "port": self.port, "protocol": "TCP"}]}
        if ready:
            subset["addresses"] = [{"ip": address} for address in ready]
        if not_ready:
            subset["notReadyAddresses"] = [{"ip": address} for address in not_ready]
        self.answer = json.dumps(
            {"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "kubernetes"}, "subsets": [subset]}
        ).encode()

    def cluster(self, extra: str, nodes: tuple[str, ...] = (LIVE, FROZEN, BLACK_HOLE, REFUSING)) -> Cluster:
        lines = "\n".join(f'cp{index} = "{address}"' for index, address in enumerate(nodes, 1))
        return config.parse(
            f"""
            [cluster]
            name = "kubernetes"
            vip = "10.0.0.100"
            [nodes]
            {lines}
            [services.api]
            kind = "kube-apiserver"
            target_port = {self.port}
            backends = "kubernetes"
            {extra}
            """
        )

    @property
    def with_token(self) -> str:
        return f'tls = {{ ca = "{self.directory}/ca.pem" }}\ntoken_file = "{self.directory}/token"'


@pytest.fixture
def api(tmp_path: Path) -> Iterator[StandIn]:
    self_signed(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert isinstance(self.connection, ssl.SSLSocket)
            stand_in.requests.append(self.path)
            known = self.headers["Authorization"] == f"Bearer {stand_in.token}"
            status, body = 200, stand_in.answer
            if not known and not self.connection.getpeercert():
                status, body = 401, b'{"kind":"Status","reason":"Unauthorized"}'
            elif self.path != ENDPOINTS:
                status, body = 404, b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # clients that do not trust it hang up

    with Server((LIVE, 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "ca.key")
        context.load_verify_locations(tmp_path / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        stand_in = StandIn(server.server_port, tmp_path)
        (tmp_path / "token").write_text("first\n")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def silent(api: StandIn) -> Iterator[None]:
    """Two nodes that give no answer."""
    with frozen(FROZEN, api.port), black_hole(BLACK_HOLE, api.port):
        yield


@contextlib.contextmanager
def frozen(address: str, port: int) -> Iterator[None]:
    """Accepts connections, as the kernel does for a stopped process, and never says a word."""
    with socket.create_server((address, port)):
        yield


@contextlib.contextmanager
def black_hole(address: str, port: int) -> Iterator[None]:
    """A full accept queue: further SYNs are dropped, as by a dead host."""
    with socket.create_server((address, port), backlog=0), contextlib.ExitStack() as stack:
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        with socket.socket() as probe:
            probe.settimeout(0.3)
            with pytest.raises(TimeoutError):
                probe.connect((address, port))
        yield


@pytest.mark.usefixtures("silent")
def test_ready_apiservers_by_token_read_anew_each_time(api: StandIn, tmp_path: Path) -> None:
    api.lists(FROZEN, LIVE, not_ready=(REFUSING,))
    cluster = api.cluster(api.with_token)
    start = time.monotonic()
    pool = discover(cluster, tmp_path / "memory")["api"]
    assert time.monotonic() - start < 2.0  # neither the frozen node nor the black hole was waited for
    assert (names(pool), pool.age, pool.error) == (["cp1", "cp2"], 0.0, None)
    api.token = "second"
    stale = discover(cluster, tmp_path / "memory", timeout=1.0)["api"]
    assert (names(stale), "HTTP 401" in (stale.error or "")) == (names(pool), True)
    (tmp_path / "token").write_text("second")
    assert discover(cluster, tmp_path / "memory")["api"].error is None


def test_ready_apiservers_by_client_certificate(api: StandIn) -> None:
    api.lists("10.0.0.21", ports=[{"port": 8443}])  # the only port needs no name
    files = api.directory
    tls = f'tls = {{ ca = "{files}/ca.pem", cert = "{files}/ca.pem", key = "{files}/ca.key" }}'
    assert names(discover(api.cluster(tls), None)["api"]) == ["10.0.0.21:8443"]
    assert api.requests == [ENDPOINTS]
    api.lists("10.0.0.21", ports=[{"port": 9443, "name": "metrics"}, {"port": 8443, "name": "https"}])
    assert names(discover(api.cluster(tls), None)["api"]) == ["10.0.0.21:8443"]


def test_a_token_is_never_sent_to_a_server_that_was_not_verified(api: StandIn, tmp_path: Path) -> None:
    api.lists("10.0.0.21")
    token = f'token_file = "{tmp_path}/token"'
    pool = discover(api.cluster(token, nodes=(LIVE,)), None)["api"]
    assert (names(pool), pool.age, "set tls.ca" in (pool.error or "")) == (["cp1"], None, True)
    other = tmp_path / "other"
    other.mkdir()
    self_signed(other)
    foreign = f'{token}\ntls = {{ ca = "{other}/ca.pem" }}'
    pool = discover(api.cluster(foreign, nodes=(LIVE,)), None)["api"]
    assert (names(pool), pool.age, "verify failed" in (pool.error or "")) == (["cp1"], None, True)
    assert api.requests == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "not an Endpoints object"),
        (b"\xff\xfe", "not an Endpoints object"),
        (b'{"kind":"Status"}', "not an Endpoints object"),
        (b'{"kind":"Endpoints"}', "no ready endpoint"),
        (b'{"kind":"Endpoints","subsets":[{"addresses":[{"ip":"10.0.0.21"}]}]}', "port"),
        (
            b'{"kind":"Endpoints","subsets":[{"addresses":[{"ip":"127.0.0.1"}],"ports":[{"port":1}]}]}',
            "loopback",
        ),
        (b'{"kind":"Endpoints","subsets":[{"addresses":[{"ip":"a\\n"}],"ports":[{"port":1}]}]}', "not an IP"),
        (b'{"kind":"Endpoints","subsets":[{"addresses":[{"ip":"10.0.0.21"}],"ports":[{"port":0}]}]}', "port 0"),
        (b'{"kind":"Endpoints","subsets":[{"addresses":[{"ip":"10.0.0.21"}],"ports":[{"port":"1"}]}]}', "int"),
        (b" " * (5 << 20), "more than"),
    ],
)
def test_an_answer_that_is_none_is_told(api: StandIn, answer: bytes, told: str) -> None:
    api.answer = answer
    pool = discover(api.cluster(api.with_token, nodes=(LIVE,)), None)["api"]
    assert (names(pool), pool.age) == (["cp1"], None)
    assert told in (pool.error or "")
    assert (pool.error or "").isprintable()


@pytest.mark.usefixtures("silent")
def test_silence_costs_the_timeout_and_says_who_was_silent(api: StandIn) -> None:
    start = time.monotonic()
    pool = discover(api.cluster(api.with_token, nodes=(FROZEN, BLACK_HOLE, REFUSING)), None, timeout=1.0)["api"]
    assert 0.5 < time.monotonic() - start < 2.0
    assert (names(pool), pool.age) == (["cp1", "cp2", "cp3"], None)
    assert f"{REFUSING}:{api.port} (Connection refused)" in (pool.error or "")
    assert f"{BLACK_HOLE}:{api.port} (no answer in" in (pool.error or "")


@pytest.mark.usefixtures("silent")
def test_nodes_are_asked_when_all_servers_of_the_last_answer_are_gone(api: StandIn, tmp_path: Path) -> None:
    cluster = api.cluster(api.with_token, nodes=(LIVE, FROZEN, BLACK_HOLE))
    api.lists(BLACK_HOLE)
    discover(cluster, tmp_path / "memory")
    api.lists(LIVE)
    pool = discover(cluster, tmp_path / "memory", timeout=1.0)["api"]
    assert (names(pool), pool.age) == (["cp1"], 0.0)
