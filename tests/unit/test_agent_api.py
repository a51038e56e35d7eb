"""The agent's sockets: what they answer, whom they let in, and what nobody can do to them."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_stand_in import Site, StandIn, running

from lbha.agent import http
from lbha.agent.api import Local, Said, unix_listener
from lbha.agent.client import ask
from lbha.config.values import RUN_DIR_MAX
from lbha.errors import ConfigError, LbhaError
from lbha.facts import Status


def served(tmp_path: Path, work: Callable[[], Any], agent: StandIn | None = None) -> Any:
    """The result of `work`, in a thread beside an agent's UNIX socket."""

    async def test() -> Any:
        async with running(Local(agent or StandIn(), str(tmp_path)).run()):
            return await asyncio.to_thread(work)

    return asyncio.run(test())


def raw(tmp_path: Path, request: bytes, *, end: bool = False) -> bytes:
    """All that comes back for these bytes, in at most 5 s."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(tmp_path / "agent.sock"))
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = bytearray()
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return bytes(answer)


def test_status_survives_the_way(tmp_path: Path) -> None:
    got = served(tmp_path, lambda: ask(str(tmp_path), "GET", "/status"))
    assert isinstance(got, Status)
    assert got.peers == StandIn().status().peers[:0] + got.peers and got.peers[1].problem == "not asked yet"
    assert got.report.decision.terms[2].why == "it holds the VIP"
    assert got.haproxy == StandIn().status().haproxy


def test_what_changes_something(tmp_path: Path) -> None:
    agent, at = StandIn(), str(tmp_path)

    def work() -> None:
        before = time.time()
        drained = ask(at, "POST", "/drain", {"for": 60, "reason": "new\nkernel", "force": True})
        assert drained.drain is not None
        _, until, reason, force = agent.calls[0]
        assert before + 60 <= until <= time.time() + 60 and (reason, force) == ("new kernel", True)
        ask(at, "POST", "/drain")
        assert agent.calls[1] == ("drain", None, "", False)
        assert ask(at, "POST", "/undrain").cluster == "prod"
        change = {"service": "etcd", "server": "cp1", "state": "maint"}
        assert ask(at, "POST", "/backend", change, Said).text == "etcd/cp1: maint"
        assert agent.calls[2:] == ["undrain", ("etcd", "cp1", "maint", False)]

    served(tmp_path, work, agent)


def test_events_and_metrics(tmp_path: Path) -> None:
    at = str(tmp_path)

    def work() -> None:
        assert ask(at, "GET", "/events?n=2", type=list[dict[str, str]]) == [{"kind": "moved"}] * 2
        assert len(ask(at, "GET", "/events", type=list[dict[str, str]])) == 3
        assert b"lbha_vip_held 1.0\n" in raw(tmp_path, b"GET /metrics HTTP/1.0\r\n\r\n")

    served(tmp_path, work)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "said"),
    [
        ("POST", "/drain", {"reason": "refuse"}, LbhaError, "nobody could take over"),
        ("POST", "/drain", {"reason": "break"}, LbhaError, "a fault of the agent; its log has more"),
        ("POST", "/drain", {"for": 0}, ConfigError, "for is a number of seconds, more"),
        ("POST", "/drain", {"for": 1e300}, ConfigError, "for is a number of seconds, more"),
        ("POST", "/drain", {"for": "1h"}, ConfigError, "Expected `float | null`, got `str` - at `$.for`"),
        ("POST", "/drain", {"untill": 1}, ConfigError, "Object contains unknown field `untill`"),
        ("POST", "/drain", [], ConfigError, "Expected `object`, got `array`"),
        ("POST", "/backend", {}, ConfigError, "Object missing required field `service`"),
        ("GET", "/events?n=0", None, ConfigError, "n is a whole number from 1 to 1000"),
        ("GET", "/events?n=" + "9" * 5000, None, ConfigError, "n is a whole number from 1 to 1000"),
        ("GET", "/events?n=x", None, ConfigError, "n is a whole number from 1 to 1000"),
        ("GET", "/drain", None, LbhaError, "POST it"),
        ("GET", "/report", None, LbhaError, "there is /status, /events, /metrics, /drain, /undrain, /backend"),
        ("GET", "/status/../drain", None, LbhaError, "there is /status, "),
        ("POST", "/drain", {"reason": "x" * 70_000}, LbhaError, "Request Entity Too Large"),
    ],
)  # fmt: skip
def test_what_is_refused(
    tmp_path: Path, method: str, path: str, body: object, kind: type[LbhaError], said: str
) -> None:
    def work() -> None:
        with pytest.raises(LbhaError) as caught:
            ask(str(tmp_path), method, path, body)
        assert str(caught.value).startswith(said) and type(caught.value) is kind

    agent = StandIn()
    served(tmp_path, work, agent)
    assert agent.calls == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /status HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", b"431"),
        (b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n", b"400"),
        (b"POST /drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
def test_what_is_not_http(tmp_path: Path, request_: bytes, status: bytes) -> None:
    assert served(tmp_path, lambda: raw(tmp_path, request_, end=True)).startswith(b"HTTP/1.1 " + status)


def test_kept_alive_pipelined_and_chunked(tmp_path: Path) -> None:
    agent = StandIn()
    one = b"POST /undrain HTTP/1.1\r\nHost: x\r\n\r\n"
    chunked = b"POST /drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    answer = served(tmp_path, lambda: raw(tmp_path, one + chunked + one, end=True), agent)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert agent.calls == ["undrain", ("drain", None, "", False), "undrain"]


def test_the_socket_is_for_root_alone_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = Path.chmod, []

    def chmod(path: Path, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        seen.append(path)
        real(path, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    old = os.umask(0)
    try:
        listener = unix_listener(tmp_path / "agent.sock")
    finally:
        os.umask(old)
    assert seen and stat.S_IMODE((tmp_path / "agent.sock").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["agent.sock"]
    tmp_path.chmod(0o755)
    listener.close()


def test_a_dead_agents_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with pytest.raises(LbhaError, match="no agent runs on this node"):
        ask(str(tmp_path), "GET", "/status")
    unix_listener(path).close()
    with pytest.raises(LbhaError, match="no agent runs on this node"):
        ask(str(tmp_path), "GET", "/status")
    second = unix_listener(path)
    with pytest.raises(LbhaError, match="another agent answers there"):
        unix_listener(path)
    began = time.monotonic()
    with pytest.raises(LbhaError, match=r"did not answer within 0.3 s"):
        ask(str(tmp_path), "GET", "/status", timeout=0.3)
    assert time.monotonic() - began < 1
    second.close()


def test_a_directory_that_is_not_there_or_too_long(tmp_path: Path) -> None:
    for directory in (tmp_path / "none", tmp_path / ("x" * 120)):
        with pytest.raises(LbhaError, match=str(directory)) as caught:
            unix_listener(directory / "agent.sock")
        assert "\n" not in str(caught.value)


def test_the_longest_directory_that_lbha_toml_may_name(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * (RUN_DIR_MAX - len(str(tmp_path)) - 1))
    directory.mkdir()
    with unix_listener(directory / "agent.sock"), pytest.raises(LbhaError, match="did not answer"):
        ask(directory, "GET", "/status", timeout=0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_others_are_told_to_be_root(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    listener = unix_listener(tmp_path / "agent.sock")
    os.seteuid(65534)
    try:
        with pytest.raises(LbhaError, match="permission denied; run it as root"):
            ask(str(tmp_path), "GET", "/status")
    finally:
        os.seteuid(0)
    listener.close()


@pytest.mark.parametrize(
    "answer",
    [b"garbage", b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}",
     b"HTTP/1.1 409 no\r\n\r\n[]", b"HTTP/1.1 x\r\n\r\n\xff", b""],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_one_line(tmp_path: Path, answer: bytes) -> None:
    async def test() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / "agent.sock"):
            with pytest.raises(LbhaError) as caught:
                await asyncio.to_thread(ask, str(tmp_path), "GET", "/status")
            assert "\n" not in str(caught.value)

    asyncio.run(test())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("HANDSHAKE", "READ", "WRITE"):
        monkeypatch.setattr(http, limit, 0.4)
    monkeypatch.setattr(http, "IDLE", 1.0)


@pytest.mark.usefixtures("impatient")
def test_slow_ones_are_cut_off(tmp_path: Path) -> None:
    def trickle(connection: socket.socket) -> float:
        connection.settimeout(5)
        connection.connect(str(tmp_path / "agent.sock"))
        began = time.monotonic()
        try:
            for byte in b"GET /status HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx":
                connection.sendall(bytes([byte]))
                time.sleep(0.03)
        except OSError:
            pass
        return time.monotonic() - began

    def work() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            assert trickle(connection) < 1.0
        began = time.monotonic()
        assert raw(tmp_path, b"") == b""
        assert 0.9 < time.monotonic() - began < 1.5

    served(tmp_path, work)


@pytest.mark.usefixtures("impatient")
def test_who_does_not_read_is_cut_off(tmp_path: Path) -> None:
    agent = StandIn()
    agent.events.last = lambda _: [{"kind": "x" * 9_000_000}]  # type: ignore[method-assign]

    def work() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(tmp_path / "agent.sock"))
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(1.0)
            got = 0
            while chunk := connection.recv(1 << 20):
                got += len(chunk)
            assert got < 9_000_000

    served(tmp_path, work, agent)


def test_too_many_connections(tmp_path: Path) -> None:
    def work() -> None:
        several = [socket.socket(socket.AF_UNIX) for _ in range(http.MAX_CONNECTIONS + 1)]
        for each in several:
            each.settimeout(5)
            each.connect(str(tmp_path / "agent.sock"))
        # One is closed at once: the newest, or the oldest where all came before the first was looked at.
        (closed,) = select.select(several, [], [], 5)[0]
        assert closed.recv(1) == b""
        with pytest.raises(LbhaError, match="closed the connection"):
            ask(str(tmp_path), "GET", "/status")
        for each in several:
            each.close()
        time.sleep(0.1)
        assert ask(str(tmp_path), "GET", "/status").cluster == "prod"

    served(tmp_path, work)


def test_strangers_do_not_keep_the_others_out(tmp_path: Path, smallest: str) -> None:
    site = Site(tmp_path / "pki", smallest)

    async def test() -> None:
        strangers: list[socket.socket] = []
        agent, contexts = StandIn("cp2"), site.certificates("cp1").contexts
        assert contexts
        host, port = site.at("cp2")
        async with running(site.remote(agent).run()):
            for _ in range(3 * http.MAX_CONNECTIONS):
                strangers += [await asyncio.to_thread(socket.create_connection, (host, port))]
            reader, writer = await asyncio.open_connection(host, port, ssl=contexts.client)
            for path, status in (("/report", 200), ("/metrics", 200), ("/status", 404), ("/drain", 404)):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                assert head.startswith(f"HTTP/1.1 {status} ".encode())
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            writer.transport.abort()
        for each in strangers:
            each.close()

    asyncio.run(test())


def test_nothing_stays_open(tmp_path: Path, smallest: str) -> None:
    site = Site(tmp_path / "pki", smallest)

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def test() -> None:
        agent, contexts = StandIn("cp2"), site.certificates("cp1").contexts
        assert contexts
        before = descriptors()
        for _ in range(3):
            async with running(site.remote(agent).run(), Local(agent, str(tmp_path)).run()):
                host, port = site.at("cp2")
                for _ in range(5):
                    await asyncio.to_thread(ask, str(tmp_path), "GET", "/status")
                    _, writer = await asyncio.open_connection(host, port, ssl=contexts.client)
                    plain = await asyncio.to_thread(socket.create_connection, (host, port))
                    writer.transport.abort()
                    plain.close()
                _, kept = await asyncio.open_connection(host, port, ssl=contexts.client)
            kept.transport.abort()
            await asyncio.sleep(0.1)
            assert descriptors() == before

    asyncio.run(test())
