"""The stand-in apiserver against a real etcd: what a load balancer and a client can see of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lbha import config
from lbha.agent import control_plane
from lbha.lab import http1, leases, pki
from lbha.lab.apiserver import EVERYTHING, READINESS
from lbha.lab.etcd_gateway import Etcd
from lbha.lab.spec import LabNode, LabSpec
from lbha.model import Cluster, Endpoint, Node


@dataclass
class Bench:
    spec: LabSpec
    etcd: subprocess.Popen[bytes]
    server: subprocess.Popen[bytes]
    port: int
    etcd_url: str
    error_file: Path

    def cluster(self, tls: str | None = None) -> Cluster:
        """A cluster of this one apiserver."""
        own = f'ca = "{self.spec.ca}", cert = "{self.spec.client_cert}", key = "{self.spec.client_key}"'
        return config.parse(
            '[cluster]\nname = "one"\nvip = "10.0.0.100"\n[nodes]\nn1 = "127.0.0.1"\n'
            f'[services.api]\nkind = "kube-apiserver"\ntarget_port = {self.port}\n'
            + (f"tls = {{ {own} }}\n" if tls is None else tls)
        )

    def members(self, service: str) -> list[Endpoint]:
        assert service == "api"
        return [Endpoint("127.0.0.1", self.port)]

    def known(self) -> ssl.SSLContext:
        return http1.client_tls(self.spec.ca, self.spec.client_cert, self.spec.client_key)

    def get(self, path: str, *, known: bool = False) -> http1.Reply:
        return asyncio.run(self._get(path, self.known() if known else http1.client_tls(self.spec.ca)))

    async def _get(self, path: str, tls: ssl.SSLContext) -> http1.Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        writer.write(http1.request("GET", path, "127.0.0.1"))
        try:
            return await asyncio.wait_for(http1.read_reply(reader), 5)
        finally:
            writer.transport.abort()

    def until(self, path: str, status: int, seconds: float) -> http1.Reply:
        end = time.monotonic() + seconds
        while True:
            try:
                reply = self.get(path)
                if reply.status == status:
                    return reply
            except OSError:
                pass
            assert time.monotonic() < end, f"{path} never gave {status}"
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    at = tmp_path_factory.mktemp("stand-in")
    node = LabNode("n1", "127.0.0.1", "::1", "none", at)
    port, etcd_port, peer_port = _free_port(), _free_port(), _free_port()
    spec = LabSpec(
        "test", "lbha-script", at, (node,), "127.0.0.1", "none", "none", port, etcd_port,
        at / "ca.crt", at / "client.crt", at / "client.key", "stand-in",
    )  # fmt: skip
    pki.write(spec)
    cert, key = pki.server_cert(node), pki.server_key(node)
    etcd_url, peer_url = f"https://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    etcd = subprocess.Popen(
        ["etcd", "--name=n1", f"--data-dir={at / 'data'}", f"--listen-client-urls={etcd_url}",
         f"--advertise-client-urls={etcd_url}", f"--listen-peer-urls={peer_url}",
         f"--initial-advertise-peer-urls={peer_url}", f"--initial-cluster=n1={peer_url}",
         f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={spec.ca}", "--client-cert-auth"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    error_file = at / "error"
    server = subprocess.Popen(
        [sys.executable, "-m", "lbha.lab.apiserver", "--address=127.0.0.1", f"--port={port}",
         f"--cert={cert}", f"--key={key}", f"--ca={spec.ca}", f"--etcd={etcd_url}",
         f"--etcd-cert={spec.client_cert}", f"--etcd-key={spec.client_key}", f"--error-file={error_file}"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    made = Bench(spec, etcd, server, port, etcd_url, error_file)
    try:
        made.until("/readyz", 200, 20)
        yield made
    finally:
        os.kill(etcd.pid, signal.SIGCONT)
        for process in (server, etcd):
            process.kill()
            process.wait()
        assert server.stdout
        server.stdout.close()


def test_a_stranger_sees_health_and_version_only(bench: Bench) -> None:
    assert bench.get("/readyz").body == b"ok"
    assert bench.get("/livez").status == bench.get("/healthz").status == 200
    assert json.loads(bench.get("/version").body)["gitVersion"] == "stand-in"
    assert bench.get("/api/v1/namespaces?watch=true").status == 403
    assert bench.get("/nothing", known=True).status == 404


def test_readyz_fails_within_the_real_timeout_while_etcd_is_frozen(bench: Bench) -> None:
    async def probes() -> list[http1.Reply]:
        await asyncio.sleep(0.6)  # an answer from before must not count any more
        tls = http1.client_tls(bench.spec.ca)
        return await asyncio.gather(*(bench._get("/readyz", tls) for _ in range(5)))

    os.kill(bench.etcd.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        replies = asyncio.run(probes())
        took = time.monotonic() - start
    finally:
        os.kill(bench.etcd.pid, signal.SIGCONT)
    assert {reply.status for reply in replies} == {500}
    assert b"[-]etcd failed" in replies[0].body
    assert took < 4, "five probes at once must share one read of etcd"
    bench.until("/readyz", 200, 5)


def test_while_the_error_file_says_so_everything_is_500(bench: Bench) -> None:
    bench.error_file.write_text(EVERYTHING)
    try:
        assert {bench.get(path).status for path in ("/readyz", "/livez", "/version")} == {500}
    finally:
        bench.error_file.unlink()
    assert bench.get("/version").status == 200


def test_an_unready_one_serves_all_the_same(bench: Bench) -> None:
    bench.error_file.write_text(READINESS)
    try:
        assert [bench.get(path).status for path in ("/readyz", "/livez", "/version")] == [500, 200, 200]
    finally:
        bench.error_file.unlink()
    assert bench.get("/readyz").status == 200


def test_haproxys_old_style_check_is_answered_and_closed(bench: Bench) -> None:
    context = http1.client_tls(bench.spec.ca)
    with (
        socket.create_connection(("127.0.0.1", bench.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as link,
    ):
        link.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        received = b""
        while data := link.recv(4096):
            received += data
    assert received.startswith(b"HTTP/1.1 200 OK\r\n") and received.endswith(b"\r\n\r\nok")


def test_a_lease_is_held_by_one_and_told_by_the_agents_watch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates for each component, elected through real etcd; the agent's own watch reads who won."""
    monkeypatch.setattr(leases, "RETRY", 0.2)
    monkeypatch.setattr(leases, "DURATION", 1)
    monkeypatch.setattr(control_plane, "INTERVAL", 0.1)
    assert bench.get(f"{leases.PATH}kube-scheduler").status == 403, "not for strangers"
    assert bench.get(f"{leases.PATH}kube-scheduler", known=True).status == 404, "nobody yet"

    async def story() -> None:
        tls = http1.client_tls(bench.spec.ca, bench.spec.client_cert, bench.spec.client_key)
        etcd = Etcd(bench.etcd_url, tls)

        def stand(host: str) -> asyncio.Task[None]:
            both = (leases.Candidate(etcd, component, host).run() for component in leases.PORTS)
            return asyncio.ensure_future(_together(*both))

        watch = control_plane.ControlPlaneWatch(bench.cluster(), Node("n1", ("127.0.0.1",)), bench.members)
        watching = asyncio.create_task(watch.run())
        first = stand("cp1")
        try:
            await _until(lambda: _active(watch) == {"cp1"})
            second = stand("cp2.example.com")
            await asyncio.sleep(1)
            assert _active(watch) == {"cp1"}, "a lease that is renewed is not taken"
            first.cancel()
            await _until(lambda: _active(watch) == {"cp2.example.com"})
            second.cancel()
        finally:
            first.cancel()
            watching.cancel()
        assert watch.facts.problem is None
        assert all(abs(time.time() - lease.renewed) < 5 for lease in watch.facts.leases)

    asyncio.run(story())
    lease = json.loads(bench.get(f"{leases.PATH}kube-scheduler", known=True).body)
    assert lease["spec"]["leaseTransitions"] == 1 and "lbha.lab/stand-in" in lease["metadata"]["annotations"]


def test_without_a_right_or_an_answer_nobody_knows_who_is_active(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "INTERVAL", 0.1)

    async def problem(cluster: Cluster, at: Bench = bench) -> str:
        watch = control_plane.ControlPlaneWatch(cluster, Node("n1", ("127.0.0.1",)), at.members)
        watching = asyncio.create_task(watch.run())
        try:
            await _until(lambda: watch.facts.problem not in (None, "not asked yet"))
            return watch.facts.problem or ""
        finally:
            watching.cancel()

    assert "no credentials; set services.api.tls.cert" in asyncio.run(problem(bench.cluster(tls="")))
    bench.error_file.write_text(EVERYTHING)
    try:
        assert "HTTP 500" in asyncio.run(problem(bench.cluster()))
    finally:
        bench.error_file.unlink()
    os.kill(bench.server.pid, signal.SIGSTOP)
    try:
        assert "no answer in 1 s" in asyncio.run(problem(bench.cluster()))
    finally:
        os.kill(bench.server.pid, signal.SIGCONT)
    elsewhere = replace(bench, port=_free_port())
    assert "Connection refused" in asyncio.run(problem(elsewhere.cluster(), elsewhere))


def _active(watch: control_plane.ControlPlaneWatch) -> set[str]:
    return {lease.holder for lease in watch.facts.leases}


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*work)


async def _until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def test_a_watch_speaks_once_and_ends_at_once_with_the_server(bench: Bench) -> None:
    async def watch() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=bench.known())
        writer.write(http1.request("GET", "/api/v1/namespaces?watch=true", "127.0.0.1"))
        status, _ = await http1.read_head(reader)
        event = json.loads(await http1.read_chunk(reader))
        assert status == 200
        assert event["type"] == "ADDED"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.5)
        killed = time.monotonic()
        bench.server.terminate()
        with pytest.raises((EOFError, ConnectionError)):
            await asyncio.wait_for(http1.read_chunk(reader), 5)
        ended = time.monotonic() - killed
        writer.transport.abort()
        return ended

    assert asyncio.run(watch()) < 1
    assert bench.server.wait(5) == -signal.SIGTERM
    assert bench.server.stdout
    assert b"stand-in for kube-apiserver on 127.0.0.1" in bench.server.stdout.read()
