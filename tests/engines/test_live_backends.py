"""Servers that come and go while haproxy serves on: no reload, no cut stream, and truth after any harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from apply_host import ADDRESS, PORT, VIP, Host, wait_for

from lbha import adjust, live, overrides, reaper
from lbha.errors import LbhaError
from lbha.haproxy_socket import Socket
from lbha.live import Server
from lbha.servers import set_server_state
from lbha.sessions import sessions

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

_STREAMS = """
import asyncio, sys
async def main(host, port, number):
    pairs = [await asyncio.open_connection(host, port) for _ in range(number)]
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    cut = 0
    for reader, _ in pairs:
        try:
            await asyncio.wait_for(reader.read(1), 0.01)
            cut += 1
        except TimeoutError:
            pass
        except OSError:
            cut += 1
    print(cut, flush=True)
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


class Live(Host):
    """A host whose haproxy is told of servers; keepalived stays out of it."""

    def configure(self, backends: Sequence[int] = (9001, 9002), extra: str = "", port: int = PORT) -> None:
        """With the check times that an operator has who sets none."""
        super().configure(backends, extra, port)
        text = self.toml.read_text()
        self.toml.write_text("".join(line for line in text.splitlines(True) if not line.startswith("check = ")))

    def serve(self, backends: tuple[int, ...] = (9001, 9002)) -> None:
        """haproxy before servers on ports 9001 to 9004, all of them checked."""
        self.ip("addr", "add", f"{VIP}/32", "dev", "eth0")
        self.configure(backends)
        assert self.apply().returncode == 0
        self.start_servers(9001, 9002, 9003, 9004)
        self.start_haproxy()
        wait_for(lambda: self.serving() == set(backends), "the servers to be up")

    @property
    def admin(self) -> Socket:
        return Socket(self.paths.haproxy_socket)

    def servers(self) -> tuple[Server, ...]:
        return adjust.servers(self.admin)

    def serving(self) -> set[int]:
        return {each.endpoint.port for each in self.servers() if each.serves}

    def named(self, name: str) -> Server:
        return next(each for each in self.servers() if each.name == name)

    def change(self, *backends: int) -> str:
        self.configure(backends)
        done = self.apply()
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def streams(self, number: int) -> subprocess.Popen[str]:
        """Connections through the VIP that stay open; a line on stdin makes it print how many were cut."""
        process = self.spawn(
            sys.executable, "-c", _STREAMS, VIP, str(PORT), str(number),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout and process.stdout.readline() == "open\n"
        wait_for(lambda: sum(each.server != "<none>" for each in sessions(self.admin)) >= number, "streams")
        return process


def cut(streams: subprocess.Popen[str]) -> int:
    """How many streams have ended."""
    return int(streams.communicate("\n", timeout=30)[0])


@pytest.fixture
def host() -> Iterator[Live]:
    host = Live()
    try:
        yield host
    finally:
        host.close()


def test_from_three_to_four_under_load_without_a_failure(host: Live) -> None:
    host.serve((9001, 9002, 9003))
    worker, streams, stop = host.worker(), host.streams(100), host.client(200)
    host.configure((9001, 9002, 9003, 9004))
    apply = host.start_lbha("apply", "-c", str(host.toml))
    wait_for(lambda: any(each.endpoint.port == 9004 for each in host.servers()), "the new server")
    told = time.monotonic()
    wait_for(lambda: 9004 in host.serving(), "its first check")
    up = time.monotonic() - told
    out, _ = apply.communicate(timeout=20)
    assert "haproxy: adjusted" in out and host.worker() == worker
    time.sleep(0.5)
    seen = stop()
    ended, line = cut(streams), out.splitlines()[1]
    print(
        f"\n{line}; "
        f"up {up * 1000:.0f} ms after it was told; {len(seen.failed)} of {seen.done} connections failed, "
        f"{ended} of 100 streams cut"
    )
    assert seen.done > 100 and seen.failed == [] and ended == 0


def test_servers_come_go_return_and_are_replaced(host: Live) -> None:
    host.serve()
    worker, stop = host.worker(), host.client(50)
    assert f"+ {ADDRESS}:9003" in host.change(9001, 9002, 9003)
    wait_for(lambda: host.serving() == {9001, 9002, 9003}, "the third")
    assert "haproxy: adjusted" in host.change(9002, 9003)
    assert host.serving() == {9002, 9003} and host.named("cp1").draining
    assert "haproxy: adjusted" in host.change(9001, 9002)  # one returns, one leaves
    assert host.serving() == {9001, 9002} and host.named("cp1").serves
    assert "haproxy: adjusted" in host.change(9004)  # none of them stays
    assert host.serving() == {9004}
    assert "haproxy: unchanged" in host.apply().stdout
    assert host.worker() == worker
    seen = stop()
    assert seen.done > 50 and seen.failed == []
    # What lies on disk is the whole truth: a reload gives the server its own name, and the slots are free.
    host.haproxy.reload(host.file("haproxy.cfg"))
    assert host.named("cp1").serves and host.named("cp1").endpoint.port == 9004
    assert all(each.parked for each in host.servers() if each.slot)


def test_a_new_server_that_does_not_answer_leaves_the_old_one_in_place(host: Live) -> None:
    host.serve((9001,))
    stop = host.client(50)
    assert "haproxy: adjusted" in host.change(9009)
    assert host.serving() == {9001}
    assert stop().failed == []
    assert "haproxy: unchanged" in host.apply().stdout
    late = host.start_servers(9009)
    wait_for(lambda: 9009 in host.serving(), "the new server")
    assert "haproxy: adjusted" in host.apply().stdout
    assert host.serving() == {9009}
    late.kill()


def test_without_a_free_slot_it_is_a_reload(host: Live) -> None:
    host.serve()
    worker = host.worker()
    many = [9001, 9002, *range(9100, 9100 + live.SLOTS + 1)]
    host.configure(many)
    assert "haproxy: would reload" in host.apply("--dry-run").stdout
    assert "haproxy: reloaded" in host.change(*many)
    assert host.worker() != worker


def test_what_was_changed_behind_our_back_is_set_right(host: Live) -> None:
    host.serve()
    first = "web/cp1"
    for harm in ("state drain", "state maint", "weight 0", "addr 127.0.0.1 port 9"):
        host.admin.ask(f"set server {first} {harm}")
        assert "haproxy: adjusted" in host.apply().stdout, harm
        wait_for(lambda: host.serving() == {9001, 9002}, harm)
        assert "haproxy: unchanged" in host.apply().stdout, harm


@pytest.mark.parametrize("words", [1, 2, 3, 4])
def test_an_apply_that_was_killed_half_way_is_completed(host: Live, words: int) -> None:
    host.serve()
    host.configure((9001, 9002, 9003))
    rendered = host.lbha("render", "-c", str(host.toml), "--out", str(host.root / "etc"))
    assert rendered.returncode == 0
    found = live.commands(host.file("haproxy.cfg"), host.servers(), {})
    assert found is not None and len(found) == 4
    for command in found[:words]:
        assert command.accepted(host.admin.ask(str(command)))
    assert ("haproxy: unchanged" if words == 4 else "haproxy: adjusted") in host.apply().stdout
    wait_for(lambda: host.serving() == {9001, 9002, 9003}, "the third")


def test_a_dead_server_in_a_slot_gets_nothing_after_a_reload(host: Live) -> None:
    host.serve()
    host.change(9001, 9002, 9009)  # nobody listens there
    wait_for(lambda: any(each.endpoint.port == 9009 for each in host.servers()), "the slot")
    time.sleep(0.5)
    host.haproxy.reload(host.file("haproxy.cfg"))
    assert not host.named(f"{ADDRESS}:9009").up


def test_an_operators_drain_holds_over_applies_and_reloads(host: Live) -> None:
    host.serve()
    first, second = "cp1", f"{ADDRESS}:9002"
    set_server_state(host.paths, "web", first, "drain")
    assert host.named(first).draining and overrides.path(host.state_dir).stat().st_mode & 0o777 == 0o600
    with pytest.raises(LbhaError, match="last server that serves web"):
        set_server_state(host.paths, "web", second, "maint")
    assert "haproxy: unchanged" in host.apply().stdout
    host.haproxy.reload(host.file("haproxy.cfg"))
    assert host.named(first).draining and host.serving() == {9002}
    set_server_state(host.paths, "web", second, "maint", force=True)
    assert host.named(second).parked and host.serving() == set()
    for name in (first, second):
        set_server_state(host.paths, "web", name, "ready")
    wait_for(lambda: host.serving() == {9001, 9002}, "both")
    assert overrides.read(host.state_dir) == {}


def test_the_sessions_of_a_server_that_left_end_paced_and_its_slot_is_free(
    host: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.serve()
    host.change(9001, 9002, 9003)
    wait_for(lambda: 9003 in host.serving(), "the third")
    streams = host.streams(150)
    mine = [each for each in sessions(host.admin) if each.server.startswith("_slot")]
    assert len(mine) >= 40
    host.change(9001, 9002)
    assert reaper.reap(host.paths).ended == 0  # not yet
    monkeypatch.setattr(reaper, "DRAIN_SECONDS", 0)
    start = time.monotonic()
    reaped = reaper.reap(host.paths, rate=100, seconds=5.0)
    took = time.monotonic() - start
    print(f"\n{reaped.ended} sessions ended in {took:.2f} s at 100 a second")
    assert reaped.ended == len(mine) and took > len(mine) / 100 * 0.7
    reaped = reaper.reap(host.paths) if not reaped.parked else reaped
    assert reaped.parked == ("web/_slot1",) and host.named("_slot1").parked
    assert cut(streams) == len(mine)
    assert "haproxy: unchanged" in host.apply().stdout


def test_old_workers_are_told_of_and_their_stranded_sessions_end(host: Live) -> None:
    host.serve()
    servers = host.start_servers(9005)
    host.change(9001, 9005)
    wait_for(lambda: 9005 in host.serving(), "the new one")
    old, streams = host.worker(), host.streams(20)
    on_it = sum(each.server.startswith("_slot") for each in sessions(host.admin))
    host.haproxy.reload(host.file("haproxy.cfg"))
    (worker,) = reaper.old_workers(host.paths)
    assert (worker.pid, worker.sessions) == (old, 20)
    assert reaper.reap(host.paths).stranded == 0
    # As with a machine that froze: its connections stay, and checks fail.
    children = Path(f"/proc/{servers.pid}/task/{servers.pid}/children").read_text().split()
    for pid in (servers.pid, *map(int, children)):
        os.kill(pid, signal.SIGSTOP)
    host.admin.ask(f"set server web/{ADDRESS}:9005 health down")
    reaped = reaper.reap(host.paths)
    assert reaped.stranded == on_it > 0
    wait_for(
        lambda: [each.sessions for each in reaper.old_workers(host.paths)] == [20 - on_it],
        "their sessions to end",
    )
    assert cut(streams) == on_it
