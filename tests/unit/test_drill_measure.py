"""From records to figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbha.lab.measure import (
    Holders,
    figures,
    gap,
    holder_changes,
    moved,
    steady_for,
    two_holders_ms,
    watch_figures,
)
from lbha.lab.records import Request, Watch


def every_20_ms(start: float, end: float, *, error: str | None = None, took: float = 0.004) -> list[Request]:
    count = round((end - start) / 0.02)
    return [Request(start + i * 0.02, start + i * 0.02 + took, error) for i in range(count)]


def test_a_service_that_never_fails_shows_the_interval() -> None:
    got = figures(every_20_ms(0, 10), 5.0, 9.99)
    assert (got.failed, got.last_failure_ms, got.errors) == (0, None, {})
    assert got.gap_ms == 20.0
    assert got.slowest_ms == 4.0


def test_an_outage_is_felt_from_the_last_good_start_to_the_next() -> None:
    records = every_20_ms(0, 5) + every_20_ms(5, 8, error="timeout", took=1.0) + every_20_ms(8, 12)
    got = figures(records, 5.0, 12.0)
    assert 3000 <= got.gap_ms <= 3040
    assert got.failed == 150
    assert 2960 <= (got.last_failure_ms or 0) <= 3000
    assert got.errors == {"timeout": 150}


def test_a_request_under_way_at_the_injection_is_cut_and_not_failed() -> None:
    got = figures([Request(4.9, 5.9, "timeout"), Request(5.03, 5.1, "reset")], 5.0, 6.0, 5.01)
    assert (got.count, got.failed, got.cut) == (2, 1, 1)
    assert figures([Request(4.9, 5.9, "timeout")], 5.0, 6.0).last_failure_ms is None


def test_a_service_that_never_comes_back_gaps_to_the_end() -> None:
    got = figures(every_20_ms(0, 5) + every_20_ms(5, 9, error="refused"), 5.0, 65.0)
    assert got.gap_ms >= 60_000


def test_outages_before_the_injection_do_not_count() -> None:
    records = every_20_ms(0, 1) + every_20_ms(1, 3, error="refused") + every_20_ms(3, 6)
    got = figures(records, 5.0, 5.98)
    assert got.failed == 0
    assert got.gap_ms <= 21


requests = st.lists(
    st.builds(
        lambda start, took, error: Request(start, start + took, error),
        st.floats(0, 100),
        st.floats(0, 1),
        st.sampled_from([None, "timeout"]),
    ),
    max_size=60,
)


@given(requests, st.floats(0, 100))
def test_a_gap_holds_no_success_and_a_further_success_never_widens_it(
    records: list[Request], injected: float
) -> None:
    ended = max([injected, *(record.start for record in records)])
    longest = gap(records, injected, ended)
    assert 0 <= longest <= 100
    for at in (injected, (injected + ended) / 2, ended):
        assert gap([*records, Request(at, at, None)], injected, ended) <= longest + 1e-9


@given(requests, st.floats(0, 100))
def test_figures_do_not_depend_on_the_order_of_records(records: list[Request], injected: float) -> None:
    ended = max([injected, *(record.start for record in records)])
    forwards, backwards = figures(records, injected, ended), figures(records[::-1], injected, ended)
    assert forwards == backwards
    assert forwards.failed + forwards.cut == sum(forwards.errors.values()) <= forwards.count
    assert (forwards.last_failure_ms is None) == (forwards.failed == 0)


@given(requests, st.floats(0, 100), st.floats(0, 10))
def test_steady_never_reaches_back_beyond_a_failure(
    records: list[Request], injected: float, later: float
) -> None:
    now = injected + later
    ended = [record for record in records if record.end <= now]
    quiet = steady_for(ended, injected, now, 1.0)
    assert 0 <= quiet <= later + 1e-9
    assert not [record for record in ended if record.error and record.end > now - quiet + 1e-9]


def test_silence_is_not_steadiness() -> None:
    assert steady_for(every_20_ms(0, 5), 5.0, 9.0, 1.0) == 0.0


def test_watches_are_recovered_when_the_last_is_back() -> None:
    events = [Watch(i, 0.1 * i, True) for i in range(3)]
    events += [Watch(0, 5.1, False), Watch(0, 5.2, True), Watch(1, 5.1, False), Watch(1, 6.5, True)]
    got = watch_figures(events, 0, 5.0)
    assert (got.dead, got.unaware, got.recovery_ms) == (2, 0, 1500.0)


def test_a_watch_that_does_not_know_has_not_recovered() -> None:
    got = watch_figures([Watch(0, 0.0, True), Watch(1, 0.0, True)], 2, 5.0)
    assert (got.dead, got.unaware, got.recovery_ms) == (2, 2, None)


def test_a_watch_that_never_came_back_has_not_recovered() -> None:
    got = watch_figures([Watch(0, 0.0, True), Watch(0, 5.5, False)], 0, 5.0)
    assert (got.dead, got.recovery_ms) == (1, None)


def test_watches_that_live_on_take_no_time() -> None:
    assert watch_figures([Watch(0, 0.0, True)], 0, 5.0).recovery_ms == 0.0


def test_holders_start_with_who_held_it_and_list_changes_only() -> None:
    samples = [Holders(1.0, ("a",)), Holders(5.5, ()), Holders(5.6, ("b",)), Holders(5.7, ("b",))]
    assert holder_changes(samples, 5.0) == [(0.0, ["a"]), (500.0, []), (600.0, ["b"])]


def test_who_held_it_before_the_fault_did_not_take_it() -> None:
    assert not moved([(0.0, ["a"]), (10.0, []), (20.0, ["a"])])
    assert moved([(0.0, ["a"]), (10.0, ["b"]), (20.0, ["a"])])
    assert moved([(0.0, ["a"]), (10.0, ["a", "b"])])


def test_two_holders_are_counted_until_the_end_of_the_window() -> None:
    changes = [(0.0, ["a"]), (500.0, ["a", "b"]), (700.0, ["b"]), (900.0, ["a", "b"])]
    assert two_holders_ms(changes, 1000.0) == 300.0
    assert two_holders_ms([(0.0, ["a"])], 1000.0) == 0.0
