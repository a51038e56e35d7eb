"""From one lbha.toml to another: what is refused node by node, and the order of the rest."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statuses import cluster

from lbha.config import parse
from lbha.election import NodeState, priority, winner
from lbha.errors import RenderError
from lbha.forecast.change import Fate, compare, disagreements
from lbha.forecast.order import Step, order
from lbha.forecast.wire import Wire, wire
from lbha.model import Cluster, Mode, Node
from lbha.priority import agent_terms, terms


def changed(smallest: str, *edits: tuple[str, str]) -> tuple[Cluster, Cluster]:
    text = smallest
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse(smallest), parse(text)


def refused(smallest: str, *edits: tuple[str, str]) -> list[str]:
    return [refusal.what for refusal in compare(*changed(smallest, *edits)).refusals]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (('name = "prod"', 'name = "prod"\nvirtual_router_id = 7'), "cluster.virtual_router_id"),
        (('name = "prod"', 'name = "test"'), "cluster.virtual_router_id"),
        (("10.0.0.100", "10.0.0.101"), "first VIP"),
        (('vip  = "10.0.0.100"', 'vips = ["10.0.0.101", "10.0.0.100"]'), "first VIP"),
    ],
)
def test_what_splits_the_nodes_is_refused(smallest: str, edit: tuple[str, str], what: str) -> None:
    assert refused(smallest, edit) == [what]


@pytest.mark.parametrize(
    "edit",
    [
        ('vip  = "10.0.0.100"', 'vips = ["10.0.0.100", "10.0.0.101"]'),  # in no advert
        ("[services.etcd]", "[failover]\ndown_timer_adverts = 3\n[services.etcd]"),
        ("[services.etcd]", "[failover]\nfailback = true\n[services.etcd]"),
        ("[services.etcd]", '[health]\nmode = "script"\n[services.etcd]'),
        ('cp3 = "10.0.0.13"', 'cp3 = "10.0.0.13"\ncp4 = "10.0.0.14"'),
        ('cp1 = "10.0.0.11"\n', ""),
        ('cp1 = "10.0.0.11"\ncp2 = "10.0.0.12"', 'cp2 = "10.0.0.12"\ncp1 = "10.0.0.11"'),
    ],
)
def test_what_does_not_is_not(smallest: str, edit: tuple[str, str]) -> None:
    assert refused(smallest, edit) == []


def test_a_template_that_speaks_otherwise_is_refused(smallest: str, tmp_path: Path, templates: Path) -> None:
    own = (templates / "keepalived" / "keepalived.conf.j2").read_text()
    (tmp_path / "keepalived").mkdir()
    file = tmp_path / "keepalived" / "keepalived.conf.j2"
    edit = ("[services.etcd]", f'[templates]\ndirectory = "{tmp_path}"\n[services.etcd]')
    file.write_text(own.replace("vrrp_version 3", "vrrp_version 2"))
    assert refused(smallest, edit) == ["VRRP version"]
    old, new = changed(smallest, edit)
    rarer = replace(new, failover=replace(new.failover, advert_interval=1.0))
    assert [refusal.what for refusal in compare(new, rarer).refusals] == ["failover.advert_interval"]
    assert compare(old, replace(old, failover=rarer.failover)).refusals == (), "version 3 adopts it"
    file.write_text(own.replace("{%- if peers %}\n  unicast_src_ip", "{%- if false %}\n  unicast_src_ip"))
    assert refused(smallest, edit) == ["adverts"]


def test_the_family_of_the_first_vip(smallest: str) -> None:
    both = smallest.replace('vip  = "10.0.0.100"', 'vips = ["10.0.0.100", "fd00::100"]')
    for n in (1, 2, 3):
        both = both.replace(f'"10.0.0.1{n}"', f'["10.0.0.1{n}", "fd00::1{n}"]')
    turned = both.replace('["10.0.0.100", "fd00::100"]', '["fd00::100", "10.0.0.100"]')
    for n in (1, 2, 3):
        turned = turned.replace(f'["10.0.0.1{n}", "fd00::1{n}"]', f'["fd00::1{n}", "10.0.0.1{n}"]')
    old, new = parse(both), parse(turned)
    assert [refusal.what for refusal in compare(old, new).refusals] == ["address family"]
    assert compare(parse(smallest), old).refusals == (), "an IPv6 VIP beside the first"
    six = smallest.replace("10.0.0.", "fd00::")
    assert [refusal.what for refusal in compare(parse(smallest), parse(six)).refusals] == ["nodes"]


def test_no_node_stays(smallest: str) -> None:
    old, new = changed(
        smallest,
        ('cp1 = "10.0.0.11"', 'cp4 = "10.0.0.14"'),
        ('cp2 = "10.0.0.12"', 'cp5 = "10.0.0.15"'),
        ('cp3 = "10.0.0.13"', 'cp3 = "10.0.0.16"'),
    )
    change = compare(old, new)
    assert [refusal.what for refusal in change.refusals] == ["nodes"]
    found = order(old, new, change)
    assert [step.node for step in found] == ["cp3", "cp2", "cp1", "cp4", "cp5", "cp3"]
    assert not any("drain" in step.do for step in found), "nobody is left to take it"
    fates = {each.node: each.fate for each in change.nodes}
    assert fates["cp3"] is Fate.READDRESSED and fates["cp1"] is Fate.REMOVED and fates["cp5"] is Fate.ADDED


def test_one_node_alone_has_nobody_to_disagree_with(smallest: str) -> None:
    alone = smallest.replace('cp2 = "10.0.0.12"\ncp3 = "10.0.0.13"\n', "")
    for edit in (("10.0.0.100", "10.0.0.101"), ('cp1 = "10.0.0.11"', 'cp1 = "10.0.0.11"\ncp2 = "10.0.0.12"')):
        assert refused(alone, edit) == []


@pytest.mark.parametrize(
    ("edit", "reloads", "restarts", "adjusted"),
    [
        (("[services.etcd]", "[failover]\nhandover_rate = 50\n[services.etcd]"), (), (), False),
        (
            ("[services.etcd]", "[failover]\ndown_timer_adverts = 3\n[services.etcd]"),
            ("keepalived",),
            (),
            False,
        ),
        (("[services.etcd]", "[failover]\nvrrp_filter = true\n[services.etcd]"), ("nftables",), (), False),
        (('"etcd"', '"etcd"\nbalance = "first"'), ("haproxy",), (), False),
        (('"etcd"', '"etcd"\nbackends = ["10.0.0.11", "10.0.0.12"]'), (), (), True),
        (('"etcd"', '"etcd"\nbackends = "etcd-members"'), (), (), True),
        (
            ("[services.etcd]", '[paths]\nkeepalived_pid = "/run/k.pid"\n[services.etcd]'),
            (),
            ("keepalived",),
            False,
        ),
        (
            ("[services.etcd]", '[paths]\nhaproxy_master_socket = "/run/m.sock"\n[services.etcd]'),
            (),
            ("haproxy",),
            False,
        ),
    ],
)
def test_who_reloads_and_who_restarts(
    smallest: str, edit: tuple[str, str], reloads: tuple[str, ...], restarts: tuple[str, ...], adjusted: bool
) -> None:
    for node in compare(*changed(smallest, edit)).nodes:
        assert (node.fate, node.reloads, node.restarts, node.adjusted) == (
            Fate.STAYS, reloads, restarts, adjusted,
        )  # fmt: skip


def test_another_mode_comes_with_another_unit(smallest: str) -> None:
    old, new = changed(smallest, ("[services.etcd]", '[health]\nmode = "script"\n[services.etcd]'))
    there, back = (steps(a, b) for a, b in ((old, new), (new, old)))
    assert all("enable --now lbha-reload.timer" in step.do for step in there)
    assert all("enable --now lbha-agent" in step.do for step in back)
    assert there[-1].do.startswith("lbha drain") and back[-1].do.startswith("systemctl stop keepalived")


def steps(old: Cluster, new: Cluster) -> tuple[Step, ...]:
    return order(old, new, compare(old, new))


def test_the_same_file_is_an_upgrade(smallest: str) -> None:
    found = steps(*changed(smallest))
    assert [step.node for step in found] == ["cp3", "cp2", "cp1"]
    assert all("upgrade" in step.do for step in found) and "lbha drain" in found[-1].do


def test_where_keepalived_is_not_touched_nobody_is_drained(smallest: str) -> None:
    found = steps(*changed(smallest, ('"etcd"', '"etcd"\nbalance = "first"')))
    assert [step.node for step in found] == ["cp3", "cp2", "cp1"]
    assert not any("drain" in step.do for step in found)


def test_a_refused_change_has_a_safe_way(smallest: str) -> None:
    """Only one keepalived runs from before the first new file until after it."""
    old, new = changed(smallest, ("10.0.0.100", "10.0.0.101"))
    running = {node.name for node in old.nodes}
    for step in steps(old, new):
        if "stop keepalived" in step.do:
            running.discard(step.node)
        if "lay" in step.do:
            assert running <= {step.node} or step.node not in running
        if "start keepalived" in step.do:
            running.add(step.node)
    assert running == {"cp1", "cp2", "cp3"}


ADDRESSES = {f"cp{n}": f"10.0.0.{10 + n}" for n in range(1, 7)}
node_sets = st.lists(st.sampled_from(sorted(ADDRESSES)), min_size=1, max_size=5, unique=True)
clusters = st.builds(
    lambda nodes, router, vips, interval, mode, shift: replace(
        cluster(),
        nodes=tuple(Node(name, (f"10.0.{int(shift and name == 'cp1')}.{name[2:]}",)) for name in nodes),
        virtual_router_id=router,
        vips=vips,
        failover=replace(cluster().failover, advert_interval=interval),
        health=replace(cluster().health, mode=mode),
    ),
    nodes=node_sets,
    router=st.sampled_from([51, 52]),
    vips=st.sampled_from([("10.9.0.1",), ("10.9.0.2",), ("10.9.0.1", "10.9.0.2")]),
    interval=st.sampled_from([0.1, 1.0]),
    mode=st.sampled_from(Mode),
    shift=st.booleans(),
)


@settings(deadline=None, max_examples=15)
@given(old=clusters, new=clusters)
def test_a_change_is_refused_in_both_directions_or_in_none(old: Cluster, new: Cluster) -> None:
    there, back = compare(old, new).refusals, compare(new, old).refusals
    assert [each.what for each in there] == [each.what for each in back]
    assert [(each.before, each.after) for each in there] == [(each.after, each.before) for each in back]
    assert compare(old, old).refusals == ()


@settings(deadline=None, max_examples=15)
@given(old=clusters, new=clusters)
def test_the_order_keeps_its_rules(old: Cluster, new: Cluster) -> None:
    change = compare(old, new)
    found = order(old, new, change)
    fates = {each.node: each.fate for each in change.nodes}
    staying = {name for name, fate in fates.items() if fate is Fate.STAYS}
    if not staying:
        assert change.refusals
        assert [step.node for step in found] == [node.name for node in (*reversed(old.nodes), *new.nodes)]
        return
    lays = [
        at for at, step in enumerate(found) if step.node in staying and step.do != "systemctl stop keepalived"
    ]
    stops = [at for at, step in enumerate(found) if "disable --now" in step.do and step.node not in staying]
    starts = [at for at, step in enumerate(found) if "enable --now haproxy keepalived" in step.do]
    assert len(lays) == len(staying), "every node that stays gets the file once"
    assert max(stops, default=-1) < min(lays) and max(lays) < min(starts, default=len(found))
    leaving = {name for name, fate in fates.items() if fate in (Fate.REMOVED, Fate.READDRESSED)}
    coming = {name for name, fate in fates.items() if fate in (Fate.ADDED, Fate.READDRESSED)}
    assert {found[at].node for at in stops} == leaving and {found[at].node for at in starts} == coming
    drains = [step for step in found if "lbha drain" in step.do]
    assert all(step.node not in staying or step is found[max(lays)] for step in drains), "the holder last"


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("before", range(1, 8))
@pytest.mark.parametrize("after", range(1, 8))
def test_in_mid_change_the_holder_stays_elected(before: int, after: int, mode: Mode) -> None:
    """Another number of nodes gives all other priorities: those of both files, while both are in force, must
    not move the VIP."""

    def value(nodes: int, index: int, holds: bool) -> int:
        if mode is Mode.AGENT:
            return priority(agent_terms(nodes, failback=False), index, NodeState(holds=holds))
        sizes = terms(nodes, 2, failback=False)
        return sizes.base(index, 2 if sizes.local else 0) + sizes.holder * holds

    staying = min(before, after)
    for holder in range(staying):
        order = [index for index in reversed(range(staying)) if index != holder]
        for moved in range(len(order) + 1):
            values = [
                value(after if index in order[:moved] else before, index, index == holder)
                for index in range(staying)
            ]
            assert winner(values, holder, range(staying)) == holder


def test_what_is_read_of_a_file() -> None:
    text = """\
# vrrp_version 2
global_defs {
  router_id lbha-0
  vrrp_version 3  ! three
}
vrrp_script x {
  interval 1
}
vrrp_instance lbha {
  virtual_router_id 51
  advert_int 0.1
  unicast_peer {
    10.0.0.12
    10.0.0.13
  }
  virtual_ipaddress {
    10.0.0.100/32 dev eth0
  }
  virtual_ipaddress_excluded {
    10.0.0.101/32 dev eth0
  }
}
vrrp_instance other {
  virtual_router_id 52
  virtual_ipaddress {
    10.0.0.200/32 dev eth0
  }
}
"""
    assert wire(text) == Wire(3, 51, 0.1, ("10.0.0.100",), ("10.0.0.12", "10.0.0.13"))
    assert wire("vrrp_instance x {\n  virtual_router_id 9\n}\n") == Wire(2, 9, 1.0, (), ())
    on_lines_of_their_own = re.sub(r" \{$", "\n  {", text, flags=re.MULTILINE)
    assert wire(on_lines_of_their_own) == wire(text), "keepalived takes both"


@pytest.mark.parametrize("text", ["vrrp_instance x {\n", "global_defs {\n}\n"])
def test_a_template_that_makes_no_sense_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(RenderError, match=r"keepalived\.conf\.j2"):
        wire(text)


wires = st.builds(
    Wire,
    version=st.sampled_from([2, 3]),
    virtual_router_id=st.integers(1, 3),
    advert_interval=st.sampled_from([0.1, 1.0]),
    addresses=st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=2).map(tuple),
    peers=st.lists(st.sampled_from(["10.0.0.11", "10.0.0.12"]), max_size=2).map(tuple),
)


@given(one=wires, other=wires)
def test_disagreement_is_mutual(one: Wire, other: Wire) -> None:
    there, back = disagreements(one, other), disagreements(other, one)
    assert [each.what for each in there] == [each.what for each in back]
    assert disagreements(one, one) == ()
