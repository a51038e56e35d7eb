"""etcd-members against real etcd over TLS with client certificates."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbha import config
from lbha.discovery import discover
from lbha.model import Cluster, Pool

pytestmark = pytest.mark.skipif(not shutil.which("etcd"), reason="etcd is not installed")

SUBNET = f"127.{os.getpid() >> 8 & 127 | 64}.{os.getpid() & 255}"
"""Loopback addresses of this run alone; nodes may have them, as lbha.toml says so."""


def mint(directory: Path, addresses: list[str]) -> None:
    """ca.pem, and one node.pem with node.key for servers, peers and clients alike."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "node")}
    names = {name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in keys}
    for name, key in keys.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(name == "ca", None), critical=True)
        )
        if name == "node":
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            literals = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            builder = builder.add_extension(x509.SubjectAlternativeName(literals), critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((f"{SUBNET}.1", 0))
        other.bind((f"{SUBNET}.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@dataclass
class Etcd:
    """Members m1 and m2 (voters), m3 (a learner that runs) and m4 (added, never started)."""

    directory: Path
    client_port: int
    peer_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def address(self, name: str) -> str:
        return f"{SUBNET}.{name[1:]}"

    def url(self, name: str, port: int) -> str:
        return f"https://{self.address(name)}:{port}"

    def start(self, name: str, members: list[str], state: str) -> None:
        pki = self.directory
        client, peer = self.url(name, self.client_port), self.url(name, self.peer_port)
        command = [
            "etcd", "--name", name, "--data-dir", str(pki / name),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", ",".join(f"{each}={self.url(each, self.peer_port)}" for each in members),
            "--initial-cluster-state", state, "--initial-cluster-token", SUBNET,
            "--client-cert-auth", "--trusted-ca-file", str(pki / "ca.pem"),
            "--cert-file", str(pki / "node.pem"), "--key-file", str(pki / "node.key"),
            "--peer-client-cert-auth", "--peer-trusted-ca-file", str(pki / "ca.pem"),
            "--peer-cert-file", str(pki / "node.pem"), "--peer-key-file", str(pki / "node.key"),
        ]  # fmt: skip
        with (pki / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def ctl(self, *arguments: str) -> str:
        pki = self.directory
        tls = [f"--cacert={pki}/ca.pem", f"--cert={pki}/node.pem", f"--key={pki}/node.key"]
        command = ["etcdctl", f"--endpoints={self.url('m1', self.client_port)}", *tls, *arguments]
        result = subprocess.run(
            command, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=30
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def add(self, name: str, *arguments: str) -> None:
        """Adds a member. etcd refuses until all others have been connected for 5 s."""
        peer = f"--peer-urls={self.url(name, self.peer_port)}"
        self.eventually(lambda: bool(self.ctl("member", "add", name, *arguments, peer)))

    def started(self, count: int) -> bool:
        """Whether that many members have published client URLs (a learner has to catch up first)."""
        listed = json.loads(self.ctl("member", "list", "-w", "json"))["members"]
        return sum(1 for each in listed if each.get("clientURLs")) >= count

    def eventually(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                if true():
                    return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def stop(self, *names: str) -> None:
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            process.kill()
            process.wait()

    def cluster(self, nodes: tuple[str, ...] = ("m1", "m2", "m3"), tls: str | None = None) -> Cluster:
        pki = self.directory
        own = f'ca = "{pki}/ca.pem", cert = "{pki}/node.pem", key = "{pki}/node.key"'
        lines = "\n".join(f'cp{name[1:]} = "{self.address(name)}"' for name in nodes)
        return config.parse(
            f"""
            [cluster]
            name = "members"
            vip = "10.0.0.100"
            [nodes]
            {lines}
            [services.etcd]
            kind = "etcd"
            target_port = {self.client_port}
            backends = "etcd-members"
            tls = {{ {tls or own} }}
            """
        )


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    directory = tmp_path_factory.mktemp("etcd")
    # etcd holds a peer's certificate against the address it calls from, which on loopback is 127.0.0.1.
    mint(directory, ["127.0.0.1", *(f"{SUBNET}.{host}" for host in range(1, 5))])
    running = Etcd(directory, *free_ports())
    try:
        for name in ("m1", "m2"):
            running.start(name, ["m1", "m2"], "new")
        running.eventually(lambda: running.started(2))
        running.add("m3", "--learner")
        running.start("m3", ["m1", "m2", "m3"], "existing")
        running.eventually(lambda: running.started(3))
        running.add("m4")
        yield running
    finally:
        running.stop()


def names(pool: Pool) -> list[str]:
    return [backend.name for backend in pool.backends]


def test_started_voters_and_none_else(etcd: Etcd, tmp_path: Path) -> None:
    assert len(json.loads(etcd.ctl("member", "list", "-w", "json"))["members"]) == 4
    pool = discover(etcd.cluster(), tmp_path)["etcd"]
    assert (names(pool), pool.age, pool.error) == (["cp1", "cp2"], 0.0, None)


def test_members_outside_the_nodes_are_found_through_one_that_is(etcd: Etcd) -> None:
    # m2's loopback address belongs to no node here: it is refused, and the nodes stand in.
    pool = discover(etcd.cluster(nodes=("m1",)), None)["etcd"]
    assert (names(pool), pool.age) == (["cp1"], None)
    assert "member m2" in (pool.error or "")
    assert "loopback" in (pool.error or "")


def test_a_learner_alone_gives_no_answer(etcd: Etcd) -> None:
    pool = discover(etcd.cluster(nodes=("m3",)), None)["etcd"]
    assert (names(pool), pool.age) == (["cp3"], None)
    assert "no usable answer" in (pool.error or "")


def test_a_certificate_that_does_not_fit_is_told_and_changes_nothing(etcd: Etcd, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    mint(tmp_path / "foreign", [])
    assert names(discover(etcd.cluster(), tmp_path)["etcd"]) == ["cp1", "cp2"]
    pki, foreign = etcd.directory, tmp_path / "foreign"
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key((pki / "node.key").read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for tls, told in (
        (f'ca = "{foreign}/ca.pem", cert = "{pki}/node.pem", key = "{pki}/node.key"', "verify failed"),
        (f'cert = "{pki}/node.pem", key = "{pki}/node.key"', "set tls.ca"),
        (f'ca = "{pki}/ca.pem"', "no usable answer"),  # etcd demands a client certificate
        (f'ca = "{pki}/none.pem"', "tls.ca"),
        (f'ca = "{pki}/node.key"', "tls.ca"),
        (f'ca = "{pki}/ca.pem", cert = "{pki}/node.pem", key = "{foreign}/node.key"', "tls.key"),
        (f'ca = "{pki}/ca.pem", cert = "{pki}/node.pem", key = "{locked}"', "tls.key"),
    ):
        pool = discover(etcd.cluster(tls=tls), tmp_path)["etcd"]
        assert names(pool) == ["cp1", "cp2"], tls
        assert told in (pool.error or "")
        assert (pool.error or "").isprintable()


def test_without_a_quorum_the_list_is_still_answered_and_without_etcd_remembered(
    etcd: Etcd, tmp_path: Path
) -> None:
    """Last in the file: it ends the members."""
    discover(etcd.cluster(), tmp_path)
    os.kill(etcd.processes["m1"].pid, 19)  # SIGSTOP: it accepts and never answers
    start = time.monotonic()
    pool = discover(etcd.cluster(), tmp_path, timeout=3.0)["etcd"]
    assert (names(pool), pool.age) == (["cp1", "cp2"], 0.0)
    assert time.monotonic() - start < 2.0  # m2 answered; the frozen m1 was not waited for
    etcd.stop("m2", "m3")
    start = time.monotonic()
    pool = discover(etcd.cluster(), tmp_path, timeout=1.0, clock=lambda: time.time() + 60)["etcd"]
    assert time.monotonic() - start < 3.0
    assert names(pool) == ["cp1", "cp2"]
    assert pool.age is not None
    assert 60 <= pool.age < 100
    assert "no answer in" in (pool.error or "")
    assert "Connection refused" in (pool.error or "")
