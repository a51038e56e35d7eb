"""Which controller-manager and scheduler is active, as `lbha status` tells it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from statuses import NOW, alone, server, silent, status, with_report, with_servers

from lbha.agent import show
from lbha.agent.control_plane import read_lease
from lbha.errors import DiscoveryError
from lbha.facts import ControlPlaneFacts, Lease, Report, Status
from lbha.masters import COMPONENTS, Master, masters, remarks

PAGE = Path(__file__).parent.parent.parent / "docs" / "wiring.md"
MANAGER, SCHEDULER = COMPONENTS


def lease(component: str, holder: str, age: float = 1.0) -> Lease:
    return Lease(component, holder, NOW - age, 15.0)


def led(found: Status, manager: str = "cp1", scheduler: str = "cp2", age: float = 1.0) -> Status:
    """Both components run on every node, and these two are active."""
    for peer in found.peers:
        if peer.report is not None:
            found = with_report(found, replace(peer.report, components=COMPONENTS))
    found = with_report(found, replace(found.report, components=COMPONENTS))
    leases = (lease(MANAGER, manager, age), lease(SCHEDULER, scheduler, age))
    return replace(found, control_plane=ControlPlaneFacts("apiserver", leases, None))


def words(found: Status) -> dict[str, tuple[str, ...]]:
    return {each.node: each.components for each in masters(found, NOW)}


def test_one_is_active_and_the_others_stand_by() -> None:
    found = led(status())
    assert words(found) == {
        "cp1": ("active", "standby"),
        "cp2": ("standby", "active"),
        "cp3": ("standby", "standby"),
    }
    assert remarks(found, NOW) == []


@pytest.mark.parametrize("host", ["cp3", "CP3", "cp3.example.com"])
def test_a_host_calls_itself_by_its_own_name(host: str) -> None:
    assert words(led(status(), manager=host))["cp3"] == ("active", "standby")
    assert words(led(status(), manager="cp30"))["cp3"] == ("standby", "standby")


def test_the_apiserver_is_as_haproxy_sees_it() -> None:
    found = with_servers(led(status()), server("apiserver", 2, "DOWN", "L4CON"))
    assert [(each.node, each.apiserver) for each in masters(found, NOW)] == [
        ("cp1", "UP"),
        ("cp2", "DOWN"),
        ("cp3", "UP"),
    ]


def test_what_is_not_known_is_not_told() -> None:
    assert masters(status(), NOW) == () and remarks(status(), NOW) == []
    assert words(silent(led(status()), "cp3"))["cp3"] == ("?", "?")
    assert words(alone(led(status())))["cp2"] == ("?", "active"), "the lease knows more than the peers tell"
    blind = replace(led(status()), control_plane=ControlPlaneFacts("apiserver", (), "no credentials"))
    assert words(blind)["cp1"] == ("runs", "runs")
    assert remarks(blind, NOW) == [
        "which controller-manager and scheduler is active is unknown: no credentials"
    ]


def test_balancers_without_masters_say_nothing_of_them() -> None:
    found = replace(
        led(status()), control_plane=ControlPlaneFacts("elsewhere", (), "elsewhere has no server on cp1")
    )
    assert masters(found, NOW) == () and remarks(found, NOW) == []


def test_what_does_not_run_stands_not_by() -> None:
    found = led(status())
    found = with_report(found, replace(found.report, components=(SCHEDULER,)))
    assert words(replace(found))["cp1"] == ("active", "standby"), "its lease counts until it runs out"
    found = replace(found, control_plane=led(status(), manager="cp2").control_plane)
    assert words(found)["cp1"] == ("not running", "standby")


def test_nobody_is_active_when_the_lease_has_run_out() -> None:
    found = led(status(), age=42.0)
    assert {word for both in words(found).values() for word in both} == {"standby"}
    assert f"no {SCHEDULER} is active: cp2 was, 42 s ago" in remarks(found, NOW)
    assert words(led(status(), age=17.0))["cp1"][0] == "active", "clocks differ"
    assert remarks(led(status(), manager=""), NOW) == [f"no {MANAGER} has ever been active"]
    elsewhere = remarks(led(status(), manager="old-master"), NOW)
    assert elsewhere == [f"{MANAGER} is active on old-master, which is no node of lbha.toml"]


def test_an_older_agents_report_is_understood() -> None:
    report = msgspec.json.decode(msgspec.json.encode(status().report))
    del report["components"]
    assert msgspec.convert(report, Report).components is None


def test_the_page_shows_what_is_printed() -> None:
    console = Console(width=110, file=io.StringIO())
    console.print(show.status(led(status()), NOW))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    start = lines.index("masters")
    assert "\n".join(lines[start : start + 5]) in PAGE.read_text(encoding="utf-8")


def test_a_lease_as_the_apiserver_writes_it() -> None:
    body = b"""{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"kube-scheduler"},
        "spec":{"holderIdentity":"cp-1_0b5b1f0e-2c3d","leaseDurationSeconds":15,"leaseTransitions":3,
        "renewTime":"2026-05-28T20:26:40.250000Z"}}"""
    assert read_lease(SCHEDULER, body) == Lease(SCHEDULER, "cp-1", 1_780_000_000.25, 15.0)
    given_up = b'{"kind":"Lease","spec":{"holderIdentity":"","leaseDurationSeconds":1}}'
    assert read_lease(SCHEDULER, given_up).holder == ""


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b'{"kind":"Status"}', b'{"kind":"Lease","spec":{"renewTime":"soon"}}']
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(DiscoveryError, match="not a lease"):
        read_lease(SCHEDULER, body)


@given(st.text())
def test_no_identity_moves_the_cursor(identity: str) -> None:
    body = msgspec.json.encode({"kind": "Lease", "spec": {"holderIdentity": identity}})
    assert read_lease(SCHEDULER, body).holder.isprintable()


def test_masters_are_values() -> None:
    assert masters(led(status(1)), NOW) == (Master("cp1", "UP", ("active", "standby")),)
