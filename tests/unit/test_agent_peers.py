"""Agents among themselves: real sockets on loopback, real TLS, peers that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from agent_stand_in import Site, StandIn, hurry, running, until

from lbha import inet_diag, pki
from lbha.agent import peers as peers_module
from lbha.agent.carried import Carried, HeardConnections
from lbha.agent.peer_tls import Certificates


@pytest.fixture
def site(tmp_path: Path, smallest: str) -> Site:
    return Site(tmp_path / "pki", smallest)


def test_three_agents_hear_each_other(site: Site) -> None:
    async def test() -> None:
        agents = [StandIn(node.name) for node in site.cluster.nodes]
        watches = [site.watch(agent.node) for agent in agents]
        async with running(*(site.remote(agent).run() for agent in agents), *(each.run() for each in watches)):
            for watch, agent in zip(watches, agents, strict=True):
                assert [peer.node for peer in watch.peers] == [
                    each.node for each in agents if each is not agent
                ]
                for other in watch.peers:
                    peer = await until(watch, other.node, None)
                    assert peer.report is not None and peer.report.node == other.node
                    assert peer.report.decision.priority == 215
                    assert peer.heard is not None and time.time() - peer.heard < 2

    asyncio.run(test())


def test_changed_is_called_for_what_weighs_and_not_each_second(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)

    async def test() -> None:
        calls: list[float] = []
        agent = StandIn("cp2")
        watch = site.watch("cp1", lambda: calls.append(time.monotonic()))
        async with running(watch.run()):
            await until(watch, "cp2", "refused")
            await until(watch, "cp3", "refused")
            async with running(site.remote(agent).run()):
                await until(watch, "cp2", None)
                count = len(calls)
                await asyncio.sleep(0.4)
                assert len(calls) == count == 3
                agent.score = 1
                await asyncio.sleep(0.2)
                assert len(calls) == 4
            gone = await until(watch, "cp2", "refused")
            assert gone.report is not None and gone.report.decision.score == 1
            assert len(calls) == 5

    asyncio.run(test())


def test_one_connection_serves_many_questions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    opened = []
    real = asyncio.open_connection

    async def counting(*args: object, **kwargs: object) -> object:
        opened.append(args[0])
        return await real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "open_connection", counting)

    async def test() -> None:
        watch = site.watch("cp1")
        async with running(*(site.remote(StandIn(node)).run() for node in ("cp2", "cp3")), watch.run()):
            await asyncio.sleep(0.6)
            await until(watch, "cp2", None)

    asyncio.run(test())
    assert len(opened) == 2


def test_a_wrong_ca_is_refused_by_both(site: Site, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    pki.init(site.cluster, stranger)

    async def test() -> None:
        place = stranger / "cp1"
        own = site.of("cp1")
        peers = replace(own.peers, ca=f"{place}/ca.crt", cert=f"{place}/node.crt", key=f"{place}/node.key")
        foreign = Certificates(replace(own, peers=peers), own.node("cp1"))
        trusting = Certificates(replace(own, peers=peers), own.node("cp1"))
        assert foreign.contexts and trusting.contexts
        trusting.contexts.client.load_verify_locations(site.of("cp1").peers.ca)
        distrusts, distrusted = (
            site.watch("cp1", certificates=foreign),
            site.watch("cp1", certificates=trusting),
        )
        async with running(site.remote(StandIn("cp2")).run(), distrusts.run(), distrusted.run()):
            peer = await until(distrusts, "cp2", "certificate")
            # The same subject and another key: OpenSSL finds an issuer of that name.
            assert peer.problem in (
                "certificate signature failure",
                "unable to get local issuer certificate",
                "self-signed certificate in certificate chain",
            )
            await until(
                distrusted, "cp2", "it closed the connection: it may not accept this node's certificate"
            )

    asyncio.run(test())


def test_no_client_certificate_no_answer(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> bytes:
        context = ssl.create_default_context(cafile=site.of("cp1").peers.ca)
        async with running(site.remote(StandIn("cp2")).run()):
            host, port = site.at("cp2")
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.write(b"GET /report HTTP/1.0\r\n\r\n")
            try:
                return await asyncio.wait_for(reader.read(), 5)
            finally:
                writer.transport.abort()

    assert asyncio.run(test()) == b""
    told = [record.message for record in caplog.records]
    assert told == ["TLS handshake with 127.0.0.1: peer did not return a certificate"]


def test_neither_plain_http_nor_old_tls(site: Site) -> None:
    async def test() -> None:
        host, port = site.at("cp2")
        async with running(site.remote(StandIn("cp2")).run()):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /report HTTP/1.0\r\n\r\n")
            assert b"HTTP" not in await asyncio.wait_for(reader.read(), 5)
            writer.close()
            certificates = site.certificates("cp1")
            assert certificates.contexts
            old = certificates.contexts.client
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection(host, port, ssl=old)

    with pytest.warns(DeprecationWarning):
        asyncio.run(test())


def test_another_nodes_certificate_is_refused(site: Site) -> None:
    async def test() -> None:
        watch = site.watch("cp1")
        async with running(site.remote(StandIn("cp2"), site.certificates("cp2", "cp3")).run(), watch.run()):
            peer = await until(watch, "cp2", "mismatch")
            assert peer.problem == (f"IP address mismatch, certificate is not valid for '{site.at('cp2')[0]}'")

    asyncio.run(test())


def test_an_expired_certificate_is_told_at_home_and_by_the_others(site: Site) -> None:
    good = site.certificates("cp2")
    pki.init(site.cluster, site.directory, days=-0.02, renew=["cp2"])  # type: ignore[arg-type]
    expired = site.certificates("cp2")
    cert = site.of("cp2").peers.cert
    assert expired.contexts is None
    assert expired.off is not None and expired.off.startswith(f"{cert}: certificate has expired")
    assert good.contexts
    peers = site.of("cp2").peers
    good.contexts.server.load_cert_chain(peers.cert, peers.key)

    async def test() -> None:
        watch = site.watch("cp1")
        async with running(site.remote(StandIn("cp2"), good).run(), watch.run()):
            peer = await until(watch, "cp2", "expired")
            assert peer.problem == "certificate has expired"

    asyncio.run(test())


def test_the_files_of_a_node_are_told_one_by_one(site: Site) -> None:
    peers = site.of("cp1").peers
    for path, damage, said in (
        (peers.key, lambda path: path.unlink(), f"{peers.key}: No such file or directory"),
        (peers.cert, lambda path: path.write_text("x"), f"{peers.cert} with {peers.key}: "),
        (peers.ca, lambda path: path.write_text("x"), f"{peers.ca}: no certificate or crl found"),
        (
            peers.key,
            lambda path: path.write_bytes((site.directory / "cp2/node.key").read_bytes()),
            f"{peers.cert} with {peers.key}: key values mismatch",
        ),
    ):
        whole = Path(path).read_bytes()
        damage(Path(path))
        off = site.certificates("cp1").off
        assert off is not None and off.startswith(said), off
        assert "\n" not in off
        Path(path).write_bytes(whole)
    assert site.certificates("cp1").off is None


def test_one_node_only(site: Site) -> None:
    alone = replace(site.of("cp1"), nodes=site.cluster.nodes[:1])
    assert Certificates(alone, alone.nodes[0]).off == "one node only"


def test_new_certificates_are_picked_up_and_bad_ones_are_not(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(peers_module, "LOOK", 0.1)

    async def test() -> None:
        served = site.certificates("cp2")
        watch = site.watch("cp1", certificates=(own := site.certificates("cp1")))
        async with running(site.remote(StandIn("cp2"), served).run(), watch.run()):
            await until(watch, "cp2", None)
            first = own.contexts
            # A new CA and all certificates anew, one node after the other: between them they do not agree.
            for name in ("ca.crt", "ca.key"):
                (site.directory / name).unlink()
            pki.init(site.cluster, site.directory, renew=["cp1", "cp2", "cp3"])
            await until(watch, "cp2", "certificate")
            assert own.contexts is not first
            served.look()
            await until(watch, "cp2", None)
            second, cert = own.contexts, Path(site.of("cp1").peers.cert)
            cert.write_text("half")
            await asyncio.sleep(0.3)
            assert own.contexts is second and own.off is None
            await until(watch, "cp2", None)

    asyncio.run(test())
    told = [record.message for record in caplog.records if "stay in force" in record.message]
    assert len(told) == 1


def test_certificates_that_come_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(peers_module, "LOOK", 0.1)
    key = Path(site.of("cp1").peers.key)
    away = key.with_suffix(".away")
    key.rename(away)

    async def test() -> None:
        watch = site.watch("cp1", certificates=(own := site.certificates("cp1")))
        async with running(site.remote(StandIn("cp2")).run(), watch.run()):
            peer = await until(watch, "cp2", "No such file")
            assert peer.problem == own.off
            away.rename(key)
            await until(watch, "cp2", None)

    asyncio.run(test())


def test_the_holders_connections_are_followed_and_nobody_elses(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    kernel: set[bytes] = set()
    monkeypatch.setattr(inet_diag, "established", lambda _: set(kernel))

    async def test() -> None:
        heard = HeardConnections()
        holder, backup = StandIn("cp2"), StandIn("cp3")
        holder.carried = backup.carried = Carried(site.cluster).answer
        backup.holds = False
        watch = site.watch("cp1", heard=heard)
        async with running(site.remote(holder).run(), site.remote(backup).run(), watch.run()):
            for number in (3, 2000, 1999, 0):
                kernel.clear()
                kernel.update(n.to_bytes(12, "big") for n in range(number))
                await true(lambda: heard.connections() == kernel)
            holder.carried = None  # It does not hold the VIP any more, and answers 409.
            await asyncio.sleep(0.2)
            await until(watch, "cp2", None)
        assert not backup.calls

    asyncio.run(test())


@pytest.mark.parametrize("answer", [b"", b"nonsense", bytes(5 << 20), os.urandom(3000), None])
def test_nonsense_about_connections_is_forgotten_and_the_peer_still_heard(
    site: Site, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    hurry(monkeypatch)

    async def test() -> None:
        async def carried(_: str) -> bytes:
            if answer is None:
                await asyncio.sleep(60)
            return answer or b""

        heard = HeardConnections()
        holder = StandIn("cp2")
        holder.carried = carried
        watch = site.watch("cp1", heard=heard)
        async with running(site.remote(holder).run(), watch.run()):
            await until(watch, "cp2", None)
            await asyncio.sleep(1.0)
            peer = await until(watch, "cp2", None)
            assert peer.heard is not None and time.time() - peer.heard < 2.5
            assert holder.calls and not heard.connections()

    asyncio.run(test())


async def true(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "no answer in 0.8 s"),
        (b"", "it closed the connection"),
        (os.urandom(5000) + b"\r\n\r\n", "its answer is broken HTTP"),
        (OK + b"Content-Length: 10000000\r\n\r\n" + bytes(10_000_000), "an answer of more than 262144 bytes"),
        (OK + b"\r\n" + bytes(10_000_000), "an answer of more than 262144 bytes"),
        (OK + b"A: b\r\n" * 100_000, "its answer is broken HTTP"),
        (OK + b'Content-Length: 12\r\n\r\n{"node": 12}', "its report makes no sense: "),
        (OK + b"Content-Length: 99\r\n\r\n{", "its answer is broken HTTP"),
        (b"HTTP/1.1 418 no\r\nContent-Length: 7\r\n\r\nno\x1b[2J\n", "HTTP 418 no [2J"),
    ],
)
def test_a_peer_that_misbehaves_delays_nobody(site: Site, answer: bytes | None, said: str) -> None:
    async def test() -> None:
        certificates = site.certificates("cp2")
        assert certificates.contexts
        open_ones = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_ones.append(writer)
            try:
                await reader.readuntil(b"\r\n\r\n")
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                    writer.close()
            except (OSError, asyncio.IncompleteReadError):
                pass

        server = await asyncio.start_server(serve, *site.at("cp2"), ssl=certificates.contexts.server)
        await not_delayed(site, said)
        server.close()
        for writer in open_ones:
            writer.transport.abort()

    asyncio.run(test())


def test_a_peer_that_never_shakes_hands(site: Site) -> None:
    async def test() -> None:
        with socket.create_server(site.at("cp2")):  # the kernel accepts
            await not_delayed(site, "no answer in 0.8 s")

    asyncio.run(test())


async def not_delayed(site: Site, said: str) -> None:
    """cp2 has this problem, and cp3 is heard each second all the while."""
    watch = site.watch("cp1")
    async with running(site.remote(StandIn("cp3")).run(), watch.run()):
        began = time.time()
        await until(watch, "cp3", None, seconds=0.6)
        peer = await until(watch, "cp2", said, seconds=1.5)
        assert peer.report is None and peer.problem and peer.problem.isprintable()
        while time.time() < began + 2.3:
            (good,) = (each for each in watch.peers if each.node == "cp3")
            assert good.problem is None and good.heard and time.time() - good.heard < 1.3
            await asyncio.sleep(0.05)


def test_the_wrong_agent_at_the_address(site: Site) -> None:
    async def test() -> None:
        agent = StandIn("cp2")
        watch = site.watch("cp1")
        async with running(site.remote(agent).run(), watch.run()):
            agent.node = "cp3"
            await until(watch, "cp2", "answers cp3")

    asyncio.run(test())


def test_starved_it_blames_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(peers_module, "DEADLINE", 0.3)

    async def test() -> None:
        notes: list[str] = []
        watch = site.watch("cp1", lambda: notes.append(str([peer.problem for peer in watch.peers])))
        async with running(*(site.remote(StandIn(node)).run() for node in ("cp2", "cp3")), watch.run()):
            await until(watch, "cp2", None)
            await until(watch, "cp3", None)
            notes.clear()
            for _ in range(5):
                time.sleep(0.7)  # the whole loop stands still
                await asyncio.sleep(0.12)
            assert notes == []

    asyncio.run(test())


def test_two_cas_in_one_file_while_they_change(site: Site, tmp_path: Path) -> None:
    """The documented way to a new CA without a gap; both have the same name."""
    pki.init(site.cluster, tmp_path / "new")
    both = (site.directory / "ca.crt").read_bytes() + (tmp_path / "new" / "ca.crt").read_bytes()
    for place in (site.directory, tmp_path / "new"):
        for node in site.cluster.nodes:
            (place / node.name / "ca.crt").write_bytes(both)
    place = tmp_path / "new" / "cp2"
    for name in ("node.crt", "node.key"):
        (site.directory / "cp2" / name).write_bytes((place / name).read_bytes())

    async def test() -> None:
        old, new = site.watch("cp1"), site.watch("cp2")
        async with running(
            *(site.remote(StandIn(node)).run() for node in ("cp1", "cp2")), old.run(), new.run()
        ):
            await until(old, "cp2", None)
            await until(new, "cp1", None)

    asyncio.run(test())
