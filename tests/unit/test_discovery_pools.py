"""Names, order, and what a pool is when its source misbehaves."""

from __future__ import annotations

import asyncio
import json
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbha import config
from lbha.discovery import SOURCES, Query, discover
from lbha.discovery.endpoints import backends
from lbha.discovery.etcd_members import voters
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint, Pool

NODES = {"cp2": "10.0.0.12", "cp1": "10.0.0.11", "cp3": "10.0.0.13"}


def cluster(source: str = '"etcd-members"', name: str = "pools", vip: str = "10.0.0.100") -> Cluster:
    return config.parse(
        f"""
        [cluster]
        name = "{name}"
        vip = "{vip}"
        [nodes]
        cp2 = "10.0.0.12"
        cp1 = "10.0.0.11"
        cp3 = "10.0.0.13"
        [services.etcd]
        kind = "etcd"
        backends = {source}
        """
    )


def shown(pool: Pool) -> list[str]:
    return [backend.name for backend in pool.backends]


def test_nodes_stand_in_file_order_at_the_target_port() -> None:
    pool = discover(cluster('"nodes"'), None)["etcd"]
    assert [(each.name, str(each.endpoint)) for each in pool.backends] == [
        ("cp2", "10.0.0.12:2379"),
        ("cp1", "10.0.0.11:2379"),
        ("cp3", "10.0.0.13:2379"),
    ]


def test_a_list_is_named_after_nodes_and_sorted_by_number() -> None:
    pool = discover(cluster('["10.0.0.30", "10.0.0.9", "10.0.0.11:1001", "fd00::1", "10.0.0.11"]'), None)[
        "etcd"
    ]
    assert shown(pool) == ["cp1", "10.0.0.11:1001", "10.0.0.9:2379", "10.0.0.30:2379", "fd00::1:2379"]


def test_a_dual_stack_node_is_one_server() -> None:
    dual = config.parse(
        """
        [cluster]
        name = "dual"
        vips = ["fd00::100", "10.0.0.100"]
        [nodes]
        cp1 = ["10.0.0.11", "fd00::11"]
        [services.etcd]
        kind = "etcd"
        """
    )
    pool = discover(dual, None)["etcd"]
    assert [(each.name, str(each.endpoint)) for each in pool.backends] == [("cp1", "[fd00::11]:2379")]
    both = backends(dual, dual.services[0], [Endpoint("10.0.0.11", 2379), Endpoint("fd00::11", 2379)])
    assert [each.name for each in both] == ["cp1", "10.0.0.11:2379"]


ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from([*NODES.values(), "10.0.0.9", "10.0.0.20", "10.0.0.2", "fd00::1", "fd00::1:2379"]),
    st.sampled_from([2379, 2380, 4001]),
)


@given(st.lists(ENDPOINTS), st.randoms())
def test_names_are_unique_and_the_order_is_the_answers_business_never(found: list[Endpoint], random) -> None:  # type: ignore[no-untyped-def]
    whole = cluster()
    pool = backends(whole, whole.services[0], found)
    assert {each.endpoint for each in pool} == set(found)
    assert len(pool) == len(set(found)) == len({each.name for each in pool})
    for node in whole.nodes:
        own = [each.name for each in pool if each.endpoint.address == node.address]
        assert own[:1] == ([node.name] if own else [])
    owners = [
        list(NODES.values()).index(each.endpoint.address)
        for each in pool
        if each.endpoint.address in NODES.values()
    ]
    assert owners == sorted(owners)
    others = [each.endpoint.sort_key for each in pool[len(owners) :]]
    assert others == sorted(others)
    random.shuffle(found)
    assert backends(whole, whole.services[0], found) == pool


@dataclass(frozen=True)
class Script:
    """A source whose answer the test decides: endpoints, an error, or silence (None)."""

    static: ClassVar[bool] = False
    nodes_stand_in: bool
    answer: Sequence[Endpoint] | Exception | None

    async def find(self, query: Query) -> Sequence[Endpoint]:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.sleep(3600)
            raise AssertionError
        return self.answer


def ask(
    answer: Sequence[Endpoint] | Exception | None,
    memory: Path | None,
    now: float = 1000.0,
    whole: Cluster | None = None,
    nodes_stand_in: bool = True,
) -> Pool:
    sources = {**SOURCES, "etcd-members": Script(nodes_stand_in, answer)}
    return discover(whole or cluster(), memory, timeout=0.02, clock=lambda: now, sources=sources)["etcd"]


BAD: list[Sequence[Endpoint] | Exception | None] = [
    None,
    DiscoveryError("broken"),
    OSError(5, "Input/output error"),
    RuntimeError("a mistake\nin the source"),
    [],
    [Endpoint("10.0.0.21", 0)],
    [Endpoint("10.0.0.21", 65536)],
    [Endpoint("10.0.0.21", 2379), Endpoint("127.0.0.1", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("::1", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("fe80::1%eth0", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("::ffff:10.0.0.22", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("host\n.example", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("10.0.0.100", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("0.0.0.0", 2379)],
    [Endpoint("10.0.0.21", 2379), Endpoint("ff02::1", 2379)],
]
GOOD = st.lists(
    st.builds(Endpoint, st.sampled_from(["10.0.0.11", "10.0.0.21", "fd00::1"]), st.integers(1, 65535)),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(GOOD, st.sampled_from(BAD)), max_size=6), st.booleans())
def test_a_pool_is_the_last_good_answer_and_never_empty(
    answers: list[Sequence[Endpoint] | Exception | None], nodes_stand_in: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        memory = Path(directory) / "discovery"
        good, confirmed = None, 0.0
        for index, answer in enumerate(answers):
            now = 1000.0 + index * 7
            if not any(answer is bad for bad in BAD):
                assert isinstance(answer, list)
                good, confirmed = backends(cluster(), cluster().services[0], answer), now
            if good is None and not nodes_stand_in:
                with pytest.raises(DiscoveryError) as raised:
                    ask(answer, memory, now, nodes_stand_in=nodes_stand_in)
                assert str(raised.value).isprintable()
                continue
            pool = ask(answer, memory, now, nodes_stand_in=nodes_stand_in)
            if good is None:
                assert (shown(pool), pool.age) == (list(NODES), None)
            else:
                assert pool.backends == good
                assert pool.age == pytest.approx(now - confirmed, abs=0.001)
            assert (pool.error is None) == (confirmed == now)
            assert pool.error is None or pool.error.isprintable()


def test_a_silent_source_costs_the_timeout_once_however_many_are_silent() -> None:
    services = "\n".join(
        f'[services.s{index}]\nkind = "etcd"\nport = {3000 + index}\nbackends = "etcd-members"'
        for index in range(20)
    )
    whole = config.parse(
        f'[cluster]\nname = "many"\nvip = "10.0.0.100"\n[nodes]\ncp1 = "10.0.0.11"\n{services}'
    )
    sources = {**SOURCES, "etcd-members": Script(True, None)}
    start = time.monotonic()
    pools = discover(whole, None, timeout=0.3, sources=sources)
    assert time.monotonic() - start < 2.0
    assert {(pool.age, "no answer in 0.3 s" in (pool.error or "")) for pool in pools.values()} == {(None, True)}


def test_one_failure_does_not_cost_the_memory_of_the_others(tmp_path: Path) -> None:
    whole = config.parse(
        """
        [cluster]
        name = "two"
        vip = "10.0.0.100"
        [nodes]
        cp1 = "10.0.0.11"
        [services.a]
        kind = "etcd"
        port = 1
        backends = "etcd-env:/nowhere/a"
        [services.b]
        kind = "etcd"
        port = 2
        backends = "etcd-members"
        """
    )
    sources = {**SOURCES, "etcd-members": Script(True, [Endpoint("10.0.0.21", 2379)])}
    with pytest.raises(DiscoveryError, match=r"services\.a\.backends"):
        discover(whole, tmp_path, sources=sources)
    assert (tmp_path / "b.json").exists()


# what etcd and the apiserver may answer


def member(*urls: str, name: str = "m", **more: object) -> dict[str, object]:
    return {"ID": "10501334649042878790", "name": name, "clientURLs": urls, "peerURLs": [], **more}


@pytest.mark.parametrize(
    ("urls", "chosen"),
    [
        (["http://127.0.0.1:2379", "http://10.0.0.21:2379"], "10.0.0.21:2379"),
        (["http://192.168.0.1:2379", "http://10.0.0.11:2379"], "10.0.0.11:2379"),  # a node's own address
        (["http://[fd00::1]:2379", "http://192.168.0.1:2379"], "192.168.0.1:2379"),  # the VIP's family
        (["http://[FD00:0::1]:2379"], "[fd00::1]:2379"),
        (["http://192.168.0.2:2379", "http://192.168.0.1:2379"], "192.168.0.2:2379"),
    ],
)
def test_a_member_with_several_urls_is_one_server(urls: list[str], chosen: str) -> None:
    body = json.dumps({"members": [member(*urls)]}).encode()
    assert [str(each) for each in asyncio.run(voters(cluster(), body))] == [chosen]


def test_two_members_at_one_endpoint_are_a_mistake_and_not_a_smaller_pool() -> None:
    shared = "http://10.0.0.21:2379"
    members = [member(shared, name="a"), member("http://10.0.0.22:2379", name="b"), member(shared, name="c")]
    with pytest.raises(DiscoveryError, match=r"members a and c are both at 10\.0\.0\.21:2379"):
        asyncio.run(voters(cluster(), json.dumps({"members": members}).encode()))


def test_only_members_that_have_started_and_vote_are_servers() -> None:
    url = "http://10.0.0.21:2379"
    others = [member(), member(url, name=""), member(url, isLearner=True), {"ID": "1"}]
    with pytest.raises(DiscoveryError, match="none of its 4 members"):
        asyncio.run(voters(cluster(), json.dumps({"members": others}).encode()))
    body = json.dumps({"members": [*others, member(url)]}).encode()
    assert asyncio.run(voters(cluster(), body)) == (Endpoint("10.0.0.21", 2379),)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"members":{}}', b'{"members":[{"name":1}]}', b'{"members":[{"clientURLs":"x"}]}'],
)
def test_what_is_not_a_list_of_members_is_told(body: bytes) -> None:
    with pytest.raises(DiscoveryError, match="not a list of members"):
        asyncio.run(voters(cluster(), body))


# memory

FRESH = [Endpoint("10.0.0.21", 2379)]


def test_memory_is_private_and_counts_for_this_cluster_and_source_alone(tmp_path: Path) -> None:
    memory = tmp_path / "state" / "discovery"
    ask(FRESH, memory)
    file = memory / "etcd.json"
    assert stat.S_IMODE(memory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in memory.iterdir()] == ["etcd.json"]
    assert shown(ask(None, memory)) == ["10.0.0.21:2379"]
    assert shown(ask(None, memory, whole=cluster(name="other"))) == list(NODES)
    with pytest.raises(DiscoveryError, match="no earlier answer"):
        discover(cluster('"etcd-env:/nowhere/etcd.env"'), memory)
    # An address that has become the VIP since.
    assert shown(ask(None, memory, whole=cluster(vip="10.0.0.21"))) == list(NODES)


def test_an_answer_that_stays_the_same_is_not_written_again(tmp_path: Path) -> None:
    ask(FRESH, tmp_path, now=1000.0)
    before = (tmp_path / "etcd.json").stat().st_ino
    ask(FRESH, tmp_path, now=2000.0)
    assert (tmp_path / "etcd.json").stat().st_ino == before
    assert ask(None, tmp_path, now=2005.0).age == pytest.approx(5.0, abs=0.001)
    ask([Endpoint("10.0.0.22", 2379)], tmp_path, now=2010.0)
    assert shown(ask(None, tmp_path, now=2011.0)) == ["10.0.0.22:2379"]


def test_a_look_at_another_file_leaves_the_memory_alone(tmp_path: Path) -> None:
    ask(FRESH, tmp_path, now=1000.0)
    sources = {**SOURCES, "etcd-members": Script(True, [Endpoint("10.0.0.31", 2379)])}
    looked = discover(cluster(name="staging"), tmp_path, keep=False, sources=sources)["etcd"]
    assert shown(looked) == ["10.0.0.31:2379"]
    assert (shown(ask(None, tmp_path, now=1007.0)), ask(None, tmp_path, now=1007.0).age) == (
        ["10.0.0.21:2379"],
        7.0,
    )


def test_a_slow_disk_costs_no_other_service_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config.parse(
        '[cluster]\nname = "slow"\nvip = "10.0.0.100"\n[nodes]\ncp1 = "10.0.0.11"\n'
        '[services.a]\nkind = "etcd"\nport = 1\nbackends = "etcd-members"\n'
        '[services.b]\nkind = "kube-apiserver"\nport = 2\nbackends = "kubernetes"\n'
    )

    @dataclass(frozen=True)
    class Later(Script):
        async def find(self, query: Query) -> Sequence[Endpoint]:
            for _ in range(5):
                await asyncio.sleep(0.01)
            return await Script.find(self, query)

    answer = [Endpoint("10.0.0.21", 1)]
    sources = {**SOURCES, "etcd-members": Script(True, answer), "kubernetes": Later(True, answer)}
    monkeypatch.setattr("os.fsync", lambda _: time.sleep(0.4))
    pools = discover(whole, tmp_path, timeout=0.5, sources=sources)
    assert [pool.error for pool in pools.values()] == [None, None]


def test_a_clock_that_was_put_back_gives_no_negative_age(tmp_path: Path) -> None:
    ask(FRESH, tmp_path, now=1000.0)
    assert ask(None, tmp_path, now=10.0).age == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"endpoints": []},
        {"endpoints": [{"address": "127.0.0.1", "port": 2379}]},
        {"endpoints": [{"address": "10.0.0.21", "port": 0}]},
        {"endpoints": [{"address": "10.0.0.21\n", "port": 1}]},
        {"endpoints": [{"address": "10.0.0.21", "port": "1"}]},
        {"endpoints": "10.0.0.21"},
        {"service": "other"},
        {"more": 1},
    ],
)
def test_memory_that_was_tampered_with_is_no_memory(tmp_path: Path, change: dict[str, object]) -> None:
    ask(FRESH, tmp_path)
    file = tmp_path / "etcd.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    pool = ask(None, tmp_path)
    assert (shown(pool), pool.age) == (list(NODES), None)
    assert shown(ask(FRESH, tmp_path)) == ["10.0.0.21:2379"]  # and it is replaced


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_damaged_memory_never_breaks_a_pool(noise: bytes, position: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ask(FRESH, Path(directory))
        file = Path(directory) / "etcd.json"
        data = file.read_bytes()
        file.write_bytes(data[:position] + noise)
        pool = ask(DiscoveryError("broken"), Path(directory))
        assert pool.backends
        assert pool.error


def test_a_directory_that_cannot_be_written_costs_the_memory_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert shown(ask(FRESH, blocked / "discovery")) == ["10.0.0.21:2379"]
    assert "cannot be kept" in caplog.text
