"""render is pure: equal input, equal bytes; and no value can break out of its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lbha.config import parse
from lbha.errors import RenderError
from lbha.model import Backend, Cluster, Endpoint, Mode, Paths, Pool, Service, Tls
from lbha.render import haproxy_crt, local_backend, render

Pooling = Callable[..., dict[str, Pool]]


@pytest.fixture
def cluster(smallest: str) -> Cluster:
    return parse(smallest)


def test_equal_input_gives_equal_bytes(cluster: Cluster, own_nodes: Pooling) -> None:
    first = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")
    second = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")
    assert first == second


def test_the_digest_changes_with_the_structure_and_stands_in_it(cluster: Cluster, own_nodes: Pooling) -> None:
    one = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")
    faster = tuple(replace(each, check=replace(each.check, interval=0.3)) for each in cluster.services)
    other = render(replace(cluster, services=faster), cluster.nodes[0], own_nodes(cluster), "eth0")
    assert f"description lbha-{one.digests['haproxy.cfg']}\n" in one.files["haproxy.cfg"]
    assert f"router_id lbha-{one.digests['keepalived.conf']}\n" in one.files["keepalived.conf"]
    assert one.digests["haproxy.cfg"] != other.digests["haproxy.cfg"]
    assert one.files["keepalived.conf"] == other.files["keepalived.conf"]
    # Servers go live without a reload, so a digest that counted them would never be shown.
    more = render(cluster, cluster.nodes[0], own_nodes(cluster, extra=1), "eth0")
    assert one.digests["haproxy.cfg"] == more.digests["haproxy.cfg"]
    assert one.files["haproxy.cfg"] != more.files["haproxy.cfg"]


def test_base_priorities_are_distinct_and_follow_the_file(cluster: Cluster, own_nodes: Pooling) -> None:
    found = [
        int(re.findall(r"^  priority (\d+)$", text, re.M)[0])
        for node in cluster.nodes
        for text in [render(cluster, node, own_nodes(cluster), "eth0").files["keepalived.conf"]]
    ]
    assert found == sorted(set(found), reverse=True)


def test_each_node_lists_all_the_others_as_peers(cluster: Cluster, own_nodes: Pooling) -> None:
    text = render(cluster, cluster.nodes[1], own_nodes(cluster), "eth0").files["keepalived.conf"]
    block = text.split("unicast_peer {")[1].split("}")[0].split()
    assert block == ["10.0.0.11", "10.0.0.13"]
    assert "unicast_src_ip 10.0.0.12\n" in text


def test_a_node_without_a_backend_of_its_own_has_no_local_check(cluster: Cluster, own_nodes: Pooling) -> None:
    pools = own_nodes(cluster)
    pools["etcd"] = Pool("etcd", (Backend("10.9.9.9:2379", Endpoint("10.9.9.9", 2379)),))
    script = replace(cluster, health=replace(cluster.health, mode=Mode.SCRIPT))
    text = render(script, script.nodes[0], pools, "eth0").files["keepalived.conf"]
    assert "local_apiserver" in text
    assert "local_etcd" not in text


def test_track_scripts_are_complete_without_the_cluster_file(smallest: str, own_nodes: Pooling) -> None:
    tls = 'tls = { ca = "/pki/ca.pem", cert = "/pki/c.crt", key = "/pki/c.key" }\n'
    cluster = parse(f'{smallest}{tls}[health]\nmode = "script"\n')
    text = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files["keepalived.conf"]
    assert (
        'script "/usr/bin/lbha check etcd --kind etcd --address 10.0.0.11:2379'
        ' --ca /pki/ca.pem --cert /pki/c.crt --key /pki/c.key"' in text
    )
    assert 'script "/usr/bin/lbha check haproxy --socket /run/haproxy/admin.sock"' in text


def test_failback_leaves_the_holder_check_out(smallest: str, own_nodes: Pooling) -> None:
    cluster = parse(smallest + "[failover]\nfailback = true\n")
    text = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files["keepalived.conf"]
    assert "holder" not in text.replace("# The holder", "")


def test_never_what_measured_badly(cluster: Cluster, own_nodes: Pooling) -> None:
    """nopreempt: a priority drop never moves the VIP. vrrp_strict and auth_pass: see design.md, "Priority"."""
    files = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files
    for word in ("nopreempt", "vrrp_strict", "auth_pass", "slowstart", "send-proxy"):
        assert word not in files["haproxy.cfg"] + files["keepalived.conf"]


def test_an_empty_pool_is_refused(cluster: Cluster, own_nodes: Pooling) -> None:
    pools = own_nodes(cluster) | {"etcd": Pool("etcd", ())}
    with pytest.raises(RenderError, match=r"services\.etcd: no backends"):
        render(cluster, cluster.nodes[0], pools, "eth0")


def test_additional_vips_are_excluded_from_adverts(smallest: str, own_nodes: Pooling) -> None:
    """A VIP added on one node first made two holders for 0.35 s unless excluded (measured)."""
    cluster = parse(smallest.replace('vip  = "10.0.0.100"', 'vips = ["10.0.0.100", "10.0.0.101"]'))
    text = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files["keepalived.conf"]
    assert "virtual_ipaddress {\n    10.0.0.100/32 dev eth0\n  }" in text
    assert "virtual_ipaddress_excluded {\n    10.0.0.101/32 dev eth0\n  }" in text


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ no_such_name }}", "no_such_name"),
        ("{% if %}", "line 1"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'nothing' %}", "nothing"),
    ],
)
def test_a_broken_template_of_the_operator_is_one_line(
    cluster: Cluster, own_nodes: Pooling, tmp_path: Path, template: str, problem: str
) -> None:
    (tmp_path / "haproxy").mkdir()
    (tmp_path / "haproxy" / "haproxy.cfg.j2").write_text(template)
    with pytest.raises(RenderError) as caught:
        render(replace(cluster, templates=str(tmp_path)), cluster.nodes[0], own_nodes(cluster), "eth0")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_template_can_be_overridden_alone(cluster: Cluster, own_nodes: Pooling, tmp_path: Path) -> None:
    (tmp_path / "haproxy").mkdir()
    (tmp_path / "haproxy" / "haproxy.cfg.j2").write_text("# {{ cluster.name }} & nothing escaped")
    own = replace(cluster, templates=str(tmp_path))
    files = render(own, own.nodes[0], own_nodes(own), "eth0").files
    assert files["haproxy.cfg"] == "# prod & nothing escaped\n"
    assert "vrrp_instance lbha" in files["keepalived.conf"]


@pytest.mark.parametrize(
    ("cert", "key", "expected"),
    [
        ("/p/client.crt", "/p/client.key", "/p/client.crt"),
        ("/p/client.pem", "/p/client.pem.key", "/p/client.pem"),
        ("/p/both.pem", "/p/both.pem", "/p/both.pem"),
        ("/p/etcd.pem", "/p/etcd-key.pem", "/state/tls/etcd.pem"),
        ("/p/client.crt", "/p/client.crt.key", "/state/tls/etcd.pem"),
    ],
)
def test_where_haproxy_finds_the_key(cluster: Cluster, cert: str, key: str, expected: str) -> None:
    etcd: Service = replace(cluster.services[1], tls=Tls(None, cert, key))
    assert haproxy_crt(etcd, Paths(state_dir="/state")) == expected


def test_the_local_backend_is_found_by_any_address_of_the_node(cluster: Cluster) -> None:
    node = replace(cluster.nodes[0], addresses=("10.0.0.11", "fd00::11"))
    pool = Pool("etcd", (Backend("x", Endpoint("10.0.0.12", 1)), Backend("y", Endpoint("fd00::11", 2))))
    assert local_backend(node, pool) == Endpoint("fd00::11", 2)


@pytest.mark.parametrize("laid", [None, "haproxy.cfg.j2"])
def test_templates_of_the_operator_that_nobody_would_read_are_refused(
    cluster: Cluster, own_nodes: Pooling, tmp_path: Path, laid: str | None
) -> None:
    """Jinja2 passes over them in silence, and the engines would get lbha's own templates."""
    directory = tmp_path / "own"
    if laid:
        directory.mkdir()
        (directory / laid).write_text("# in the wrong place")
    own = replace(cluster, templates=str(directory))
    with pytest.raises(RenderError, match=r"templates\.directory .* holds none of haproxy/haproxy\.cfg\.j2"):
        render(own, own.nodes[0], own_nodes(own), "eth0")


def test_a_restarted_keepalived_waits_until_the_new_holder_counts(smallest: str, own_nodes: Pooling) -> None:
    def text(toml: str) -> str:
        cluster = parse(toml)
        return render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files["keepalived.conf"]

    script = f'{smallest}[health]\nmode = "script"\ninterval = 3\n'
    assert "  vrrp_startup_delay 4\n" in text(script)
    assert "vrrp_startup_delay" not in text(script + "[failover]\nfailback = true\n")
    assert "vrrp_startup_delay" not in text(smallest), "an agent tells of a new holder within ms"


def test_agent_mode_has_two_track_files_and_the_script_as_a_backstop(
    cluster: Cluster, own_nodes: Pooling
) -> None:
    text = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files["keepalived.conf"]
    assert "file /run/lbha/up\n  weight 0 reverse\n" in text and "file /run/lbha/score\n  weight 1\n" in text
    assert 'lbha-track /run/lbha/heartbeat /usr/bin/lbha /run/haproxy/admin.sock"' in text
    assert "vrrp_script holder" not in text and "local_" not in text
    assert "vrrp_notify_fifo /run/lbha/notify.fifo\n" in text
