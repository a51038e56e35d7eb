"""The doctor's look at servers: real TLS on loopback, with certificates that are good, and bad in each way."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbha.config import parse
from lbha.doctor.context import Context
from lbha.doctor.examine import make_one
from lbha.doctor.model import Outcome, Result
from lbha.doctor.registry import CHECKS

OWN, OTHER, VIP = "127.0.0.1", "127.0.0.2", "10.0.0.100"
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass
class Authority:
    """It issues whatever a test asks for, into `directory`."""

    directory: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    name: x509.Name = field(default_factory=lambda: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]))

    def __post_init__(self) -> None:
        self.directory.mkdir()
        ca = self._builder(self.name, self.key, 365)
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write("ca.crt", ca.sign(self.key, hashes.SHA256()))

    def issue(
        self,
        name: str,
        *,
        days: float = 365,
        names: tuple[str, ...] = (OWN, OTHER, VIP),
        usages: tuple[x509.ObjectIdentifier, ...] = BOTH,
    ) -> None:
        """NAME.crt and NAME.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, days).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        alternatives = x509.SubjectAlternativeName([x509.IPAddress(ip_address(each)) for each in names])
        self._write(
            f"{name}.crt", builder.add_extension(alternatives, critical=False).sign(self.key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory / f"{name}.key").write_bytes(pem)

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        (self.directory / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400))
            .not_valid_after(now + timedelta(days=days))
        )


@dataclass
class Place:
    """A cluster on loopback: this host and another, one server on each, and the files of its lbha.toml."""

    directory: Path
    authority: Authority

    @contextmanager
    def serving(
        self,
        kind: str,
        *,
        status: int = 200,
        certificate: str = "server",
        ahead: float = 0.0,
        demands: bool = False,
        tls: bool = True,
        client: bool = True,
    ) -> Iterator[Context]:
        """Servers that answer `status` on the same port of both nodes; a Context that looks at them."""
        here = self.authority.directory
        servers = [self._server(OWN, 0, status, certificate, ahead, demands)]
        port = servers[0].server_address[1]
        servers.append(self._server(OTHER, port, status, certificate, ahead, demands))
        shows = f', cert = "{here}/client.crt", key = "{here}/client.key"' if client else ""
        files = f'tls = {{ ca = "{here}/ca.crt"{shows} }}'
        text = (
            f'[cluster]\nname = "x"\nvip = "{VIP}"\n[nodes]\ncp1 = "{OWN}"\ncp2 = "{OTHER}"\n'
            f'[services.s]\nkind = "{kind}"\nport = 7443\ntarget_port = {port}\n{files if tls else ""}\n'
            f'[paths]\nstate_dir = "{self.directory}"\nrun_dir = "{self.directory}/run"\n'
        )
        try:
            yield Context(parse(text), self.directory / "lbha.toml", "cp1")
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()

    def _server(
        self, address: str, port: int, status: int, certificate: str, ahead: float, demands: bool
    ) -> http.server.ThreadingHTTPServer:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
                self.end_headers()
                self.wfile.write(b'{"health":"true"}')

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        here = self.authority.directory
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(here / f"{certificate}.crt", here / f"{certificate}.key")
        context.load_verify_locations(here / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED if demands else ssl.CERT_OPTIONAL
        server = Quiet((address, port), Handler)
        # In the handler's thread: a handshake that fails must not end the accepting one.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    authority = Authority(tmp_path / "pki")
    authority.issue("server")
    authority.issue("client")
    return Place(tmp_path, authority)


def check(name: str, context: Context) -> Outcome:
    return make_one(next(each for each in CHECKS if each.name == name), context)


def found(name: str, context: Context) -> list[str]:
    """The severities that the check finds; it must be able to look."""
    outcome = check(name, context)
    assert outcome.result in (Result.GOOD, Result.FOUND), outcome
    return [str(each.severity) for each in outcome.findings]


GOOD = (
    "certificate-files",
    "certificate-expiry",
    "certificate-names",
    "certificate-usage",
    "certificate-authority",
)


@pytest.mark.parametrize(("kind", "asks"), [("kube-apiserver", "readyz"), ("etcd", "etcd-health")])
def test_nothing_is_wrong(place: Place, kind: str, asks: str) -> None:
    with place.serving(kind) as context:
        for name in (*GOOD, asks, "clocks"):
            assert found(name, context) == [], name


def test_each_certificate_that_is_shown(place: Place) -> None:
    def judged(name: str, **issued: object) -> list[str]:
        place.authority.issue("server", **issued)  # type: ignore[arg-type]
        with place.serving("etcd") as context:
            return found(name, context)

    assert judged("certificate-names", names=(OWN, OTHER)) == ["error"]
    assert judged("certificate-expiry", days=20) == ["warning"]
    assert judged("certificate-expiry", days=3) == judged("certificate-expiry", days=-1) == ["error"]
    assert judged("certificate-usage", usages=BOTH[:1]) == ["warning"]
    assert judged("certificate-usage") == judged("certificate-names") == judged("certificate-expiry") == []


def test_certificates_in_files(place: Place) -> None:
    def judged(name: str) -> list[str]:
        with place.serving("kube-apiserver") as context:
            return found(name, context)

    place.authority.issue("client", usages=BOTH[:1])
    assert judged("certificate-usage") == ["error"]
    place.authority.issue("client", days=20)
    assert judged("certificate-expiry") == ["warning"]
    key = place.authority.directory / "client.key"
    whole = key.read_bytes()
    place.authority.issue("client")
    assert judged("certificate-files") == []
    key.write_bytes(whole)
    assert judged("certificate-files") == ["error"], "of another pair"
    key.unlink()
    assert judged("certificate-files") == ["error"]


def test_another_authority(place: Place, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other")
    with place.serving("kube-apiserver") as context:
        mine = (place.authority.directory / "ca.crt").read_bytes()
        (place.authority.directory / "ca.crt").write_bytes((stranger.directory / "ca.crt").read_bytes())
        assert found("certificate-authority", context) == ["error"]
        assert found("certificate-names", context) == [], "it is looked at all the same"
        (place.authority.directory / "ca.crt").write_bytes(mine)
        assert found("certificate-authority", Context(context.cluster, context.config_file, "cp1")) == []


@pytest.mark.parametrize("status", [401, 403])
def test_an_apiserver_that_lets_nobody_ask(place: Place, status: int) -> None:
    with place.serving("kube-apiserver", status=status) as context:
        assert found("readyz", context) == ["error"]


def test_an_apiserver_that_is_sick_is_not_the_doctors_matter(place: Place) -> None:
    with place.serving("kube-apiserver", status=500) as context:
        assert found("readyz", context) == []


def test_an_etcd_that_demands_a_certificate(place: Place) -> None:
    with place.serving("etcd", demands=True) as context:
        assert found("etcd-health", context) == []
    for ours in ({"tls": False}, {"client": False}):
        with place.serving("etcd", demands=True, **ours) as context:
            outcome = check("etcd-health", context)
            assert [str(each.severity) for each in outcome.findings] == ["error"], outcome


def test_nobody_answers(place: Place) -> None:
    with place.serving("kube-apiserver") as context:
        pass
    for name in ("readyz", "certificate-names", "certificate-authority", "clocks"):
        outcome = check(name, context)
        assert outcome.result is Result.NOT_CHECKED and outcome.why, outcome


@pytest.mark.parametrize(("ahead", "expected"), [(0.0, []), (30.0, ["warning"]), (-30.0, ["warning"])])
def test_a_clock_that_is_wrong(place: Place, ahead: float, expected: list[str]) -> None:
    with place.serving("kube-apiserver", ahead=ahead) as context:
        assert found("clocks", context) == expected


def test_servers_that_hang_are_not_waited_for(tmp_path: Path, place: Place) -> None:
    import socket

    listener = socket.create_server((OWN, 0))
    try:
        with place.serving("kube-apiserver") as context:
            endpoint = f'["{OWN}:{listener.getsockname()[1]}"]'
            text = (
                f'[cluster]\nname = "x"\nvip = "{VIP}"\n[nodes]\ncp1 = "{OWN}"\ncp2 = "{OTHER}"\n'
                f'[services.s]\nkind = "kube-apiserver"\nport = 7443\nbackends = {endpoint}\n'
                f'[paths]\nstate_dir = "{tmp_path}"\n'
            )
            begun = time.monotonic()
            outcome = check("readyz", Context(parse(text), context.config_file, "cp1"))
            assert outcome.result is Result.NOT_CHECKED and time.monotonic() - begun < 4
    finally:
        listener.close()
