"""What a holder tells of its connections, and what its peers make of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from statuses import cluster

from lbha.agent import carried as module
from lbha.agent.carried import Carried, HeardConnections
from lbha.connections import BadDelta, connection
from lbha.model import Endpoint

VIP = Endpoint("10.0.0.100", 6443)


def of(*ports: int) -> set[bytes]:
    return {connection(VIP, Endpoint("192.0.2.7", port)) for port in ports}


class Kernel:
    """Says what it is told to say, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: set[bytes] = set()
        self.asked = 0
        monkeypatch.setattr(module.inet_diag, "established", self)
        monkeypatch.setattr(module, "READ_SHARE", 1e9)

    def __call__(self, _: Any) -> set[bytes]:
        self.asked += 1
        return set(self.now)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_peers_follow_over_deltas(kernel: Kernel) -> None:
    async def test() -> None:
        holder, peers = Carried(cluster()), [HeardConnections(), HeardConnections()]
        for now in (of(1, 2, 3), of(1, 2, 3), of(2, 3, 4), of(), of(*range(1, 3000)), of(*range(2, 3001))):
            kernel.now = now
            for peer in peers:
                answer = await holder.answer(peer.since("cp1"))
                peer.take("cp1", answer)
                assert peer.connections() == now
            assert holder.count == len(now)
        assert len(answer) < 200, "two of three thousand have changed: that is all that travels"

    asyncio.run(test())


def test_who_missed_much_or_knows_another_holder_gets_everything(kernel: Kernel) -> None:
    async def test() -> None:
        holder, peer = Carried(cluster()), HeardConnections()
        kernel.now = of(1)
        peer.take("cp1", await holder.answer(""))
        for port in range(2, 20):
            kernel.now = of(port)
            await holder.answer("")
        peer.take("cp1", await holder.answer(peer.since("cp1")))
        assert peer.connections() == of(19)
        again = Carried(cluster())
        peer.take("cp1", await again.answer(peer.since("cp1")))
        assert peer.connections() == of(19)
        for nonsense in ("zz", "00", "0" * 32, "f" * 4000):
            peer.take("cp1", await again.answer(nonsense))
            assert peer.connections() == of(19)

    asyncio.run(test())


def test_an_answer_that_does_not_fit_is_forgotten_with_what_was_known(kernel: Kernel) -> None:
    async def test() -> None:
        holder, peer = Carried(cluster()), HeardConnections()
        kernel.now = of(1, 2)
        whole = await holder.answer("")
        peer.take("cp1", whole)
        kernel.now = of(2, 3)
        change = await holder.answer(peer.since("cp1"))
        for bad in (b"", change[:40], change[:-1], bytes(16) + change[16:], bytes(40), b"x" * 16 + change[16:]):
            with pytest.raises(BadDelta):
                peer.take("cp1", bad)
            assert peer.since("cp1") == "" and not peer.connections()
            peer.take("cp1", whole)
        peer.take("cp1", change)
        assert peer.connections() == of(2, 3)

    asyncio.run(test())


def test_many_who_ask_at_once_are_one_look_at_the_kernel(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SHARE", 1e-9)

    async def test() -> None:
        holder = Carried(cluster())
        await asyncio.gather(*(holder.answer("") for _ in range(20)))

    asyncio.run(test())
    assert kernel.asked == 1


def test_what_is_old_is_forgotten(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        peer = HeardConnections()
        kernel.now = of(1)
        peer.take("cp1", await Carried(cluster()).answer(""))
        assert peer.connections() == of(1)
        monkeypatch.setattr(module, "HEARD_FOR", -1.0)
        assert not peer.connections()

    asyncio.run(test())
