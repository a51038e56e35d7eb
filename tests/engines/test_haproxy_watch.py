"""The agent's watch on a real haproxy: killed, frozen, reloaded, gone and back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from test_haproxy_driver import Daemon

from lbha.agent.haproxy_watch import HaproxyWatch
from lbha.facts import HaproxyFacts


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    try:
        made.start(made.text("000000000001"))
        yield made
    finally:
        made.close()


class Seen:
    """A running watch, and every word that it said."""

    def __init__(self, daemon: Daemon) -> None:
        self.words: list[HaproxyFacts] = []
        self.watch = HaproxyWatch(daemon.paths.haproxy_socket, ["b"], self._heard)

    def _heard(self) -> None:
        self.words.append(self.watch.facts)

    async def until(self, holds: Callable[[HaproxyFacts], bool], seconds: float = 5.0) -> float:
        """How long it took (s)."""
        began = time.monotonic()
        while not holds(self.watch.facts):
            assert time.monotonic() - began < seconds, self.watch.facts
            await asyncio.sleep(0.005)
        return time.monotonic() - began


@asynccontextmanager
async def watching(daemon: Daemon) -> AsyncIterator[Seen]:
    seen = Seen(daemon)
    task = asyncio.create_task(seen.watch.run())
    try:
        await seen.until(lambda facts: facts.problem is None)
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pids(daemon: Daemon) -> list[int]:
    """The worker and the master."""
    running = daemon.driver.running()
    assert running is not None and daemon.process is not None
    return [running.pid, daemon.process.pid]


def test_what_haproxy_says_of_its_servers(daemon: Daemon) -> None:
    async def see() -> None:
        async with watching(daemon) as seen:
            await seen.until(lambda facts: facts.live == {"b": 0})  # nobody listens at the server's port
            await seen.until(lambda facts: facts.servers[0].status == "DOWN")
            (server,) = seen.watch.facts.servers
            assert (server.service, server.name, server.endpoint.port) == ("b", "s1", daemon.server_port)
            assert server.reason.startswith("L4CON") and abs(server.since - time.time()) < 10

    asyncio.run(see())


def test_a_killed_haproxy_is_known_at_once(daemon: Daemon) -> None:
    async def see() -> None:
        async with watching(daemon) as seen:
            for pid in pids(daemon):
                os.kill(pid, signal.SIGKILL)
            took = await seen.until(lambda facts: facts.problem is not None)
            assert "down" in str(seen.watch.facts.problem) and took < 1.0
            assert daemon.process
            daemon.process.wait(5)
            daemon.start(daemon.cfg.read_text())
            await seen.until(lambda facts: facts.problem is None)

    asyncio.run(see())


def test_a_frozen_haproxy_is_known_and_forgiven(daemon: Daemon) -> None:
    async def see() -> None:
        async with watching(daemon) as seen:
            frozen = pids(daemon)
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            took = await seen.until(lambda facts: facts.problem is not None)
            assert "frozen" in str(seen.watch.facts.problem) and took < 2.0
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            await seen.until(lambda facts: facts.problem is None)

    asyncio.run(see())


def test_a_reload_is_no_crash_and_the_old_worker_is_let_go(daemon: Daemon) -> None:
    async def see() -> None:
        async with watching(daemon) as seen:
            for number in range(2, 6):
                before = seen.watch.facts.pid
                text = daemon.text(f"{number:012d}")
                await asyncio.to_thread(daemon.reload, text)
                await seen.until(lambda facts, before=before: facts.pid != before)  # type: ignore[misc]
            assert all(word.problem is None for word in seen.words)
            # A connection of ours would keep each old worker alive for ever.
            end = time.monotonic() + 10
            while "worker" in daemon.driver._master.ask("show proc").partition("# old workers")[2]:
                assert time.monotonic() < end
                await asyncio.sleep(0.1)

    asyncio.run(see())


def test_a_starved_loop_blames_nobody(daemon: Daemon) -> None:
    async def see() -> None:
        async with watching(daemon) as seen:
            for _ in range(5):
                time.sleep(0.8)
                await asyncio.sleep(0.15)
            assert all(word.problem is None for word in seen.words)
            assert seen.watch.lag.worst() > 0.5

    asyncio.run(see())


def test_a_socket_that_never_existed_is_a_haproxy_that_is_down() -> None:
    watch = HaproxyWatch("/nonexistent/admin.sock", ["b"], lambda: None)

    async def see() -> None:
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(0.2)
        task.cancel()

    asyncio.run(see())
    assert "no socket" in str(watch.facts.problem)
