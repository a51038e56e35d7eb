"""Connections as keys: there and back, as deltas of any two sets, and nothing else gets in."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statuses import cluster

from lbha import connections
from lbha.connections import (
    MAX_CONNECTIONS,
    BadDelta,
    applied,
    as_clients_see,
    bounded,
    connection,
    decode,
    delta,
    encode,
    ends,
    rank,
    to_tell,
    vip_ends,
)
from lbha.model import Endpoint, Listen

AT = Endpoint("10.0.0.100", 6443)
AT6 = Endpoint("fd00::100", 6443)

keys = st.binary(min_size=12, max_size=12) | st.binary(min_size=36, max_size=36)
sets = st.frozensets(keys, max_size=60)


@pytest.mark.parametrize(
    ("at", "client"),
    [(AT, Endpoint("192.0.2.7", 40001)), (AT6, Endpoint("fd00::7", 65535)), (AT6, Endpoint("::1", 1))],
)
def test_a_key_holds_both_ends(at: Endpoint, client: Endpoint) -> None:
    assert ends(connection(at, client)) == (at, client)


@given(sets, sets, st.integers(0, 2**32 - 1))
def test_a_delta_of_any_two_sets_leads_from_one_to_the_other(
    before: frozenset[bytes], now: frozenset[bytes], dropped: int
) -> None:
    change = decode(encode(delta(before, now, dropped)))
    assert applied(before, change) == now
    assert change.dropped == dropped


@given(sets, sets, sets)
def test_a_delta_of_another_set_is_noticed_when_it_counts_otherwise(
    before: frozenset[bytes], other: frozenset[bytes], now: frozenset[bytes]
) -> None:
    change = delta(before, now)
    expected = (other - change.gone) | change.new
    if len(expected) != len(now):
        with pytest.raises(BadDelta):
            applied(other, change)


@given(st.binary(max_size=300))
def test_noise_is_no_delta(noise: bytes) -> None:
    for data in (noise, zlib.compress(noise)):
        with pytest.raises(BadDelta):
            decode(data)


@given(sets, st.data())
def test_a_damaged_delta_is_refused_or_at_least_well_formed(now: frozenset[bytes], data: st.DataObject) -> None:
    raw = bytearray(zlib.decompress(encode(delta(frozenset(), now))))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        change = decode(zlib.compress(bytes(raw)))
    except BadDelta:
        return
    assert all(len(key) in (12, 36) for key in change.gone | change.new)
    assert max(len(change.gone), len(change.new), change.total) <= MAX_CONNECTIONS


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    with pytest.raises(BadDelta, match="longer"):
        decode(zlib.compress(bytes(200 << 20)))
    with pytest.raises(BadDelta, match="bytes"):
        decode(bytes(connections.MAX_PACKED + 1))


def test_too_many_are_refused() -> None:
    many = frozenset(n.to_bytes(12, "big") for n in range(MAX_CONNECTIONS + 1))
    with pytest.raises(BadDelta, match="more than"):
        decode(encode(delta(frozenset(), many)))


def test_what_is_over_the_bound_is_left_out_counted_and_always_the_same() -> None:
    many = [n.to_bytes(12, "big") for n in range(MAX_CONNECTIONS + 100)]
    some, dropped = bounded(many)
    assert (len(some), dropped) == (MAX_CONNECTIONS, 100)
    assert bounded(many[::-1]) == (some, dropped)
    assert bounded(many[:5]) == (frozenset(many[:5]), 0)


def test_all_connections_at_their_largest_fit_the_bound_of_the_channel() -> None:
    import random

    noise = random.Random(1)
    many = frozenset(noise.randbytes(36) for _ in range(MAX_CONNECTIONS))
    data = encode(delta(frozenset(), many))
    assert len(data) <= connections.MAX_PACKED
    assert applied(frozenset(), decode(data)) == many


def clients(at: Endpoint, *addresses: str, port: int = 40000) -> list[bytes]:
    return [connection(at, Endpoint(address, port)) for address in addresses]


def test_told_are_the_clients_of_the_vips_own_ends_that_this_node_does_not_carry() -> None:
    own = [AT, AT6]
    good = clients(AT, "192.0.2.7", "10.0.0.11") + clients(AT6, "2001:db9::1", "fd00::7")
    carried = clients(AT, "192.0.2.9")
    bad = [
        *clients(Endpoint("10.0.0.100", 22), "192.0.2.7"),
        *clients(Endpoint("10.0.0.11", 6443), "192.0.2.7"),
        *clients(AT, "10.0.0.100", "0.0.0.0", "127.0.0.1", "224.0.0.18", "255.255.255.255"),
        *clients(AT6, "::", "::1", "ff02::1", "fe80::1", "fd00::100"),
        *clients(AT, "192.0.2.7", port=0),
    ]
    assert set(to_tell([*good, *bad, *carried], set(carried), own)) == set(good)


def test_the_order_is_mixed_and_the_same_for_all() -> None:
    keys = [connection(AT, Endpoint("192.0.2.7", port)) for port in range(40000, 40400)]
    told = to_tell(keys, set(), [AT])
    assert told == to_tell(keys[::-1], set(), [AT]) == sorted(keys, key=rank)
    first = told[:200]
    assert 60 < sum(key in set(keys[:200]) for key in first) < 140, "not one half before the other"


def test_where_haproxy_listens_elsewhere_the_clients_port_counts() -> None:
    bound, seen = Endpoint("10.0.0.100", 16443), AT
    here = clients(bound, "192.0.2.7") + clients(Endpoint("10.0.0.100", 2379), "192.0.2.8")
    found = as_clients_see(set(here), {bound: seen, Endpoint("10.0.0.100", 2379): Endpoint("10.0.0.100", 2379)})
    assert found == {*clients(AT, "192.0.2.7"), *clients(Endpoint("10.0.0.100", 2379), "192.0.2.8")}


@pytest.mark.parametrize(
    ("listen", "ports"),
    [
        (Listen.AUTO, {6443: 6443, 16443: 6443, 2379: 2379, 12379: 2379}),
        (Listen.VIP, {6443: 6443, 2379: 2379}),
        (Listen.REDIRECT, {16443: 6443, 12379: 2379}),
    ],
)
def test_the_ends_are_those_of_every_vip_and_service(listen: Listen, ports: dict[int, int]) -> None:
    one = cluster()
    services = tuple(replace(service, listen=listen) for service in one.services)
    both = replace(one, vips=("10.0.0.100", "fd00::100"), services=services)
    assert vip_ends(both) == {
        Endpoint(vip, bound): Endpoint(vip, seen)
        for vip in ("10.0.0.100", "fd00::100")
        for bound, seen in ports.items()
    }
