"""When a drain is refused, and how it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from statuses import NOW, OFF, alone, report, silent, status, with_report

from lbha import drain
from lbha.agent.draining import Draining
from lbha.facts import Drain, Report, VrrpFacts


def both(change: Report, other: Report) -> str | None:
    return drain.refusal(with_report(with_report(status(), change), other), NOW)


def test_one_peer_that_can_is_enough() -> None:
    assert drain.refusal(status(), NOW) is None
    assert both(report(2, up=False), report(3)) is None
    assert both(report(2, drained=True), report(3, local=False)) is None


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (report(3, up=False), "cp3 is in FAULT (haproxy has ended)"),
        (report(3, serving=False), "cp3 does not serve (no live server: etcd)"),
        (report(3, drained=True), "cp3 is drained"),
        (replace(report(3), vrrp=VrrpFacts(problem="keepalived is down")), "cp3 cannot (keepalived is down)"),
        (replace(report(3), vrrp=VrrpFacts("FAULT")), "cp3 cannot (its keepalived is in FAULT)"),
    ],
)
def test_a_peer_that_cannot_take_over_is_named_with_its_reason(peer: Report, why: str) -> None:
    said = both(report(2, up=False), peer)
    assert said is not None and why in said and "cp2 is in FAULT" in said and "--force" in said


def test_a_peer_counts_while_its_report_is_fresh() -> None:
    assert drain.refusal(status(), NOW + 2.6) is None
    said = drain.refusal(status(), NOW + 2.8)
    assert said is not None and "cp2 not heard (its last report is old)" in said
    said = drain.refusal(silent(silent(status(), "cp2"), "cp3"), NOW)
    assert said is not None and "cp3 not heard (no route to host)" in said


def test_without_a_channel_it_says_so_and_how_to_do_it_anyway() -> None:
    said = drain.refusal(alone(status()), NOW)
    assert said is not None and OFF in said and "--force" in said


def test_the_only_node() -> None:
    said = drain.refusal(status(1), NOW)
    assert said is not None and "only node" in said


def test_a_drain_outlives_a_restart_and_expires(tmp_path: Path) -> None:
    wanted = Drain(NOW, NOW + 1800, "new kernel")
    drain.save(tmp_path / "state", wanted)
    assert (tmp_path / "state/drain.json").stat().st_mode & 0o777 == 0o600
    assert drain.load(tmp_path / "state", NOW + 1799) == (wanted, None)
    assert drain.load(tmp_path / "state", NOW + 1800) == (None, None)
    drain.save(tmp_path / "state", replace(wanted, until=None))
    assert drain.load(tmp_path / "state", NOW + 1e9) == (replace(wanted, until=None), None)
    drain.save(tmp_path / "state", None)
    assert drain.load(tmp_path / "state", NOW) == (None, None)
    drain.save(tmp_path / "state", None)
    drain.save(tmp_path / "never", None)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"since": "x"}', "\x00\x00"])
def test_a_damaged_file_is_no_drain_but_told(tmp_path: Path, damage: str) -> None:
    (tmp_path / "drain.json").write_text(damage)
    found, problem = drain.load(tmp_path, NOW)
    assert found is None and problem is not None and "drain.json" in problem and "\n" not in problem


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "drain.json").mkdir()
    found, problem = drain.load(tmp_path, NOW)
    assert found is None and problem is not None


def test_a_drain_until_boot_ends_with_the_boot_and_replaces_no_other(tmp_path: Path) -> None:
    draining = Draining(tmp_path, booted=True)
    draining.begin(status(1), None, "shutdown", force=True, until_boot=True)
    assert Draining(tmp_path, booted=False).in_force is not None
    assert Draining(tmp_path, booted=True).in_force is None
    assert Draining(tmp_path, booted=False).in_force is None, "it must not come back when the agent restarts"
    draining = Draining(tmp_path, booted=False)
    draining.begin(status(1), None, "new kernel", force=True, until_boot=False)
    draining.begin(status(1), None, "shutdown", force=True, until_boot=True)
    again = Draining(tmp_path, booted=True).in_force
    assert again is not None and again.reason == "new kernel"
