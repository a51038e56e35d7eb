"""`lbha check SERVICE` against real etcd, and against peers that hang, lie or break off, plain and over TLS."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

IN_TIME = 1.5
"""Seconds from start to end that a test grants; the check itself promises 0.9 on a host that is not busy."""


def check(*arguments: str) -> tuple[int, str]:
    """Exit code and the reason; asserts one line, no noise and an end in time."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lbha", "check", "it", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert time.monotonic() - began < IN_TIME
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.returncode, done.stdout.strip()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, other (an authority nobody trusts), and a leaf for servers and clients."""
    directory = tmp_path_factory.mktemp("pki")

    def issue(name: str, *more: str) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
        command += ["-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
        subprocess.run([*command, *more], check=True, capture_output=True, cwd=directory)

    issue("ca")
    issue("other")
    leaf = ("basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    extensions = [word for each in leaf for word in ("-addext", each)]
    issue("leaf", "-CA", "ca.crt", "-CAkey", "ca.key", *extensions, *names)
    locked = ["openssl", "ec", "-in", "leaf.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key"]
    subprocess.run(locked, check=True, capture_output=True, cwd=directory)
    (directory / "damaged.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return directory


Behave = Callable[[socket.socket], object]


@contextlib.contextmanager
def peer(
    behave: Behave, *, context: ssl.SSLContext | None = None, family: int = socket.AF_INET
) -> Iterator[str]:
    """A server that does `behave` with its connection; yields its address."""
    with socket.socket(family) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    if context is None:
                        behave(connection)
                    else:
                        with context.wrap_socket(connection, server_side=True) as wrapped:
                            behave(wrapped)

        threading.Thread(target=serve, daemon=True).start()
        host, port, *_ = listener.getsockname()
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def server_context(pki: Path, *, demand: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "leaf.crt", pki / "leaf.key")
    if demand:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki / "ca.crt")
    return context


def says(answer: bytes) -> Behave:
    """Answers, and keeps the connection open like a server that forgot about it."""

    def behave(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)
        time.sleep(3)

    return behave


def trickle(connection: socket.socket) -> None:
    """A good answer, far too slowly."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def half_closed(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 20")
    connection.shutdown(socket.SHUT_WR)
    time.sleep(3)


HEALTHY = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"health":"true"}'
READY = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
SICK = b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"health":"false"}'

PEERS: dict[str, tuple[Behave, int, str]] = {
    "healthy": (says(HEALTHY), 0, "is healthy"),
    "sick": (says(SICK), 1, "answers 503"),
    "silent": (lambda connection: time.sleep(3), 1, "after 0.9 s still asking"),
    "trickle": (trickle, 1, "after 0.9 s still asking"),
    "endless body": (endless, 1, "is not healthy"),
    "half-closed": (half_closed, 1, "broke off"),
    "ends at once": (lambda connection: connection.recv(1000), 1, "closed the connection|reset"),
    "another protocol": (says(b"220 mail.example.com ESMTP\r\n"), 1, "speaks no HTTP"),
}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", PEERS)
def test_whatever_the_peer_does_the_check_ends_in_time(pki: Path, name: str, tls: bool) -> None:
    behave, code, reason = PEERS[name]
    with peer(behave, context=server_context(pki) if tls else None) as address:
        files = ("--ca", str(pki / "ca.crt")) if tls else ()
        found = check("--kind", "etcd", "--address", address, *files)
    assert found[0] == code, found
    assert re.search(reason, found[1]), found


def test_a_tls_handshake_that_stalls() -> None:
    with peer(lambda connection: time.sleep(3)) as address:
        code, reason = check("--kind", "kube-apiserver", "--address", address)
    assert (code, reason) == (1, f"bad: it: after 0.9 s still TLS with {address}")


def test_a_peer_that_speaks_no_tls() -> None:
    with peer(says(HEALTHY)) as address:
        code, reason = check("--kind", "kube-apiserver", "--address", address)
    assert (code, "TLS with" in reason) == (1, True)


@pytest.mark.parametrize("kind", ["tcp", "etcd", "kube-apiserver"])
def test_a_full_backlog(kind: str) -> None:
    """The kernel drops our SYN, as a black hole does."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert check("--kind", kind, "--address", address) == (
            1,
            f"bad: it: after 0.9 s still connecting to {address}",
        )


def test_tcp() -> None:
    with peer(lambda connection: None) as address:
        assert check("--kind", "tcp", "--address", address) == (0, f"ok: {address} accepts connections")
    code, reason = check("--kind", "tcp", "--address", address)
    assert (code, reason) == (1, f"bad: it: {address}: Connection refused")


def test_ipv6() -> None:
    with peer(says(HEALTHY), family=socket.AF_INET6) as address:
        assert check("--kind", "etcd", "--address", address)[0] == 0


class TestApiserver:
    """/readyz over TLS: with a CA the chain counts and the name does not, as in haproxy's checks."""

    @pytest.mark.parametrize(
        ("ca", "code", "reason"),
        [
            (None, 0, "answers 200"),
            ("ca.crt", 0, "answers 200"),
            ("other.crt", 1, "certificate verify failed"),
            ("absent.crt", 1, "reading .*absent.crt: No such file"),
            ("damaged.crt", 1, "reading .*damaged.crt: "),
        ],
    )
    def test_authority(self, pki: Path, ca: str | None, code: int, reason: str) -> None:
        with peer(READY, context=server_context(pki)) as address:
            files = ("--ca", str(pki / ca)) if ca else ()
            found = check("--kind", "kube-apiserver", "--address", address, *files)
        assert found[0] == code, found
        assert re.search(reason, found[1]), found

    def test_it_asks_for_readyz(self, pki: Path) -> None:
        asked: list[bytes] = []

        def behave(connection: socket.socket) -> None:
            asked.append(connection.recv(1000))
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nok")

        with peer(behave, context=server_context(pki)) as address:
            assert check("--kind", "kube-apiserver", "--address", address)[0] == 0
        assert asked[0].startswith(b"GET /readyz HTTP/1.0\r\n")

    @pytest.mark.parametrize(("status", "reason"), [(500, "answers 500"), (401, "client certificate")])
    def test_not_ready(self, pki: Path, status: int, reason: str) -> None:
        with peer(says(b"HTTP/1.1 %d Oops\r\n\r\n" % status), context=server_context(pki)) as address:
            found = check("--kind", "kube-apiserver", "--address", address)
        assert (found[0], reason in found[1]) == (1, True), found

    @pytest.mark.parametrize(
        ("files", "code", "reason"),
        [
            (("leaf.crt", "leaf.key"), 0, "answers 200"),
            (None, 1, "certificate required|reset|closed the connection|EOF occurred"),
            (("leaf.crt", "locked.key"), 1, "reading .*locked.key: "),
            (("leaf.crt", "other.key"), 1, "reading .*other.key: .*mismatch"),
        ],
    )
    def test_client_certificate(self, pki: Path, files: tuple[str, str] | None, code: int, reason: str) -> None:
        given = ("--cert", str(pki / files[0]), "--key", str(pki / files[1])) if files else ()
        with peer(READY, context=server_context(pki, demand=True)) as address:
            found = check("--kind", "kube-apiserver", "--address", address, *given)
        assert found[0] == code, found
        assert re.search(reason, found[1]), found


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def etcd(
    directory: Path, members: int, *flags: str, scheme: str = "http"
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Real members on loopback: the client address of each, and its process."""
    ports = free_ports(2 * members)
    urls = [
        (f"{scheme}://127.0.0.1:{ports[2 * n]}", f"http://127.0.0.1:{ports[2 * n + 1]}") for n in range(members)
    ]
    cluster = ",".join(f"m{n}={peer_url}" for n, (_, peer_url) in enumerate(urls))
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for n, (client, peer_url) in enumerate(urls):
            command = [
                "etcd",
                "--name",
                f"m{n}",
                "--data-dir",
                str(directory / f"m{n}"),
                "--log-level",
                "error",
            ]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
            running[client.partition("//")[2]] = subprocess.Popen(
                [*command, "--initial-cluster", cluster, *flags],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def until(code: int, *arguments: str, seconds: float = 20) -> str:
    """Checks until the exit code is `code`; the reason then."""
    end = time.monotonic() + seconds
    while True:
        found = check(*arguments)
        if found[0] == code:
            return found[1]
        assert time.monotonic() < end, found
        time.sleep(0.1)


def test_etcd_with_client_certificates(pki: Path, tmp_path: Path) -> None:
    leaf = ("--cert", str(pki / "leaf.crt"), "--key", str(pki / "leaf.key"))
    flags = ("--cert-file", leaf[1], "--key-file", leaf[3], "--client-cert-auth")
    with etcd(tmp_path, 1, *flags, "--trusted-ca-file", str(pki / "ca.crt"), scheme="https") as members:
        (address,) = members
        asked = ("--kind", "etcd", "--address", address)
        assert until(0, *asked, "--ca", str(pki / "ca.crt"), *leaf) == f"ok: {address} is healthy"
        assert check(*asked, *leaf)[0] == 0
        assert check(*asked, "--ca", str(pki / "ca.crt"))[0] == 1
        assert check(*asked, "--ca", str(pki / "other.crt"), *leaf)[0] == 1
        assert check(*asked)[0] == 1


def test_etcd_without_a_quorum(tmp_path: Path) -> None:
    with etcd(tmp_path, 3) as members:
        first, *others = members
        asked = ("--kind", "etcd", "--address", first)
        for address in members:
            until(0, "--kind", "etcd", "--address", address)
        for address in others:
            members[address].kill()
            members[address].wait()
        until(1, *asked)
        for _ in range(3):
            code, reason = check(*asked)
            assert code == 1, reason


def test_etcd_out_of_space_still_reads(tmp_path: Path) -> None:
    """NOSPACE is raised on every member at once; haproxy's check leaves it out, and so does this one."""
    with etcd(tmp_path, 1) as members:
        (address,) = members
        asked = ("--kind", "etcd", "--address", address)
        until(0, *asked)
        request = urllib.request.Request(
            f"http://{address}/v3/maintenance/alarm",
            data=b'{"action":"ACTIVATE","memberID":"0","alarm":"NOSPACE"}',
        )
        urllib.request.urlopen(request, timeout=5).read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{address}/health", timeout=5)
        assert check(*asked)[0] == 0
