"""Tickles: segments with the right checksum, at the right pace, to each client three times."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha.checksum import checksum
from lbha.tickle import APART, STEP, TRIES, bursts, segment


def folded(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(min_size=2, max_size=80).map(lambda data: data[: len(data) // 2 * 2]))
def test_the_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert checksum(data) == 0xFFFF - folded(data)


@given(st.integers(0, 2**32 - 1), st.integers(1, 65535), st.integers(0, 2**128 - 1), st.booleans())
def test_a_receiver_finds_the_segment_whole(sequence: int, port: int, address: int, six: bool) -> None:
    here = b"\xfd" + bytes(14) + b"\x64" if six else b"\x0a\0\0\x64"
    there = (address % 2 ** (128 if six else 32)).to_bytes(16 if six else 4, "big")
    key = struct.pack("!HH", 6443, port) + here + there
    found = segment(key, sequence)
    pseudo = here + there + (struct.pack("!II", 20, 6) if six else struct.pack("!HH", 6, 20))
    assert folded(pseudo + found) == 0xFFFF
    assert struct.unpack("!HHIIBB", found[:14]) == (6443, port, sequence, 0, 5 << 4, 0x10)
    assert len(found) == 20


@pytest.mark.parametrize(
    ("count", "rate"), [(1, 10), (7, 10), (200, 1000), (5000, 1000), (20000, 10000), (0, 1000)]
)
def test_each_client_is_tickled_three_times_and_not_too_many_are_new_at_once(count: int, rate: int) -> None:
    seen: Counter[int] = Counter()
    at: dict[int, list[int]] = {}
    fresh = 0
    for number, due in enumerate(bursts(count, rate)):
        new = [index for some in due for index in some if not seen[index]]
        assert len(new) <= rate * STEP + 1
        fresh += len(new)
        assert fresh <= rate * STEP * (number + 1) + 1
        for some in due:
            for index in some:
                seen[index] += 1
                at.setdefault(index, []).append(number)
    assert seen == dict.fromkeys(range(count), TRIES)
    for times in at.values():
        assert all((b - a) * STEP > 0.5 for a, b in pairwise(times))
        assert (times[-1] - times[0]) * STEP < TRIES * APART


def test_twenty_thousand_take_a_few_seconds_at_a_rate_that_allows_it() -> None:
    assert sum(1 for _ in bursts(20_000, 10_000)) * STEP < 4
