"""Adverts on the wire, as RFC 9568 and RFC 3768 draw them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha.checksum import checksum, pseudo_header
from lbha.vrrp import PROTOCOL, Advert, BadAdvert, build, parse, payload, rank

V3 = bytes.fromhex("3133c8010064abcd0a4d0064")
V3_SIX = bytes.fromhex("3133c801000aabcdfd770000000000000000000000000100")
V2 = bytes.fromhex("2133640101010000c0a800c800000000" + "00000000")


def test_what_is_read() -> None:
    assert parse(V3, six=False) == Advert(3, 0x33, 200, ("10.77.0.100",))
    assert parse(V3_SIX, six=True) == Advert(3, 0x33, 200, ("fd77::100",))
    assert parse(V2, six=False) == Advert(2, 0x33, 100, ("192.168.0.200",))


@pytest.mark.parametrize(
    "data", [b"", V3[:-1], V3[:7], b"\x32" + V3[1:], b"\x11" + V3[1:], V3[:1] + b"\0" + V3[2:]]
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(BadAdvert):
        parse(data, six=False)


def test_an_advert_that_a_router_passed_on_is_none() -> None:
    head = bytes([0x45]) + bytes(19)
    near, far = (head[:8] + bytes([ttl, 112]) + head[10:] + V3 for ttl in (255, 254))
    assert payload(near) == V3
    with pytest.raises(BadAdvert, match="time to live 254"):
        payload(far)


def test_version_2_has_no_ipv6() -> None:
    with pytest.raises(BadAdvert):
        parse(V2, six=True)


@given(st.binary(max_size=300), st.booleans())
def test_anything_is_an_advert_or_told(data: bytes, six: bool) -> None:
    try:
        found = parse(data if six else payload(data), six=six)
    except BadAdvert:
        return
    assert 1 <= found.virtual_router_id <= 255 and found.addresses


def test_an_election_prefers_the_priority_then_the_address() -> None:
    assert rank(101, "10.0.0.1") > rank(100, "10.0.0.9") > rank(100, "10.0.0.1")
    assert rank(100, "fd00::10") > rank(100, "fd00::9")


@pytest.mark.parametrize(
    ("source", "destination", "vip"), [("10.0.0.1", "10.0.0.2", "10.0.0.9"), ("fd00::1", "fd00::2", "fd00::9")]
)
def test_what_is_built_is_what_is_read(source: str, destination: str, vip: str) -> None:
    advert = Advert(3, 51, 0, (vip,))
    data = build(advert, 0.1, source, destination)
    assert parse(data, six=":" in vip) == advert
    assert data[4:6] == b"\0\x0a", "centiseconds"
    ends = b"".join(ip_address(each).packed for each in (source, destination))
    assert checksum(pseudo_header(ends, len(data), PROTOCOL) + data) == 0, "RFC 1071: the sum with itself"
