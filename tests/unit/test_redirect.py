"""Which services are redirected, where haproxy then listens, and what the rules say."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from lbha import engine, listen
from lbha.config import parse
from lbha.model import Cluster, Endpoint, Listen, Pool
from lbha.redirect import STAYS, Redirect, redirects
from lbha.render import render

Pooling = Callable[..., dict[str, Pool]]

TAKEN = {"apiserver": "kube-apiserver (pid 812) listens on 0.0.0.0:6443"}


@pytest.fixture
def cluster(smallest: str) -> Cluster:
    return parse(smallest)


def listening(cluster: Cluster, how: Listen) -> Cluster:
    """All its services listen so."""
    return replace(cluster, services=tuple(replace(each, listen=how) for each in cluster.services))


def test_auto_redirects_what_is_taken_and_what_already_is(cluster: Cluster) -> None:
    assert redirects(cluster) == ()
    assert redirects(cluster, TAKEN) == (Redirect("apiserver", 6443, 16443, TAKEN["apiserver"]),)
    # Its program is being restarted, or has gone for good: nobody can tell, so nothing flips.
    assert redirects(cluster, {}, ["apiserver"]) == (Redirect("apiserver", 6443, 16443, STAYS),)
    assert redirects(cluster, {}, ["gone"]) == ()


def test_what_the_file_says_goes_before_what_is_seen(cluster: Cluster) -> None:
    assert redirects(listening(cluster, Listen.VIP), TAKEN, ["etcd"]) == ()
    both = redirects(listening(cluster, Listen.REDIRECT))
    assert [(each.service, each.port, each.to) for each in both] == [
        ("apiserver", 6443, 16443),
        ("etcd", 2379, 12379),
    ]


@pytest.mark.parametrize(("port", "to"), [(1, 10001), (55535, 65535), (55536, 45536), (65535, 55535)])
def test_the_default_port_is_ten_thousand_away(smallest: str, port: int, to: int) -> None:
    cluster = parse(f'{smallest}[services.other]\nkind = "tcp"\nport = {port}\n')
    assert cluster.services[2].redirect_port == to


def test_with_listen_vip_the_redirect_port_is_nobodys(smallest: str) -> None:
    other = '[services.other]\nkind = "tcp"\nport = 12379\n'
    assert parse(f'{smallest}listen = "vip"\n{other}').services[1].listen is Listen.VIP


def test_haproxy_listens_elsewhere_and_its_servers_stay_where_they_are(
    cluster: Cluster, own_nodes: Pooling
) -> None:
    plain = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")
    moved = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0", redirects=redirects(cluster, TAKEN))
    assert set(plain.files) == {"haproxy.cfg", "keepalived.conf"}
    assert "bind 10.0.0.100:6443 transparent\n" in plain.files["haproxy.cfg"]
    cfg = moved.files["haproxy.cfg"]
    assert "bind 10.0.0.100:16443 transparent\n" in cfg and "bind 10.0.0.100:2379 transparent\n" in cfg
    assert "bind 10.0.0.100:6443" not in cfg and "server cp1 10.0.0.11:6443\n" in cfg
    assert moved.digests["haproxy.cfg"] != plain.digests["haproxy.cfg"]
    assert moved.files["keepalived.conf"] == plain.files["keepalived.conf"]
    assert engine.digest_in(moved.files["lbha.nft"]) == moved.digests["lbha.nft"]


def test_the_rules_are_for_the_vips_alone(smallest: str, own_nodes: Pooling) -> None:
    cluster = parse(
        smallest.replace('vip  = "10.0.0.100"', 'vips = ["10.0.0.100", "fd00::100"]')
        .replace('"10.0.0.11"', '["10.0.0.11", "fd00::11"]')
        .replace('"10.0.0.12"', '["10.0.0.12", "fd00::12"]')
        .replace('"10.0.0.13"', '["10.0.0.13", "fd00::13"]')
    )
    text = render(
        cluster, cluster.nodes[0], own_nodes(cluster), "eth0", redirects=redirects(cluster, TAKEN)
    ).files["lbha.nft"]
    rules = [line.split(" comment ")[0].strip() for line in text.splitlines() if "dnat" in line]
    assert rules == [
        "ip daddr 10.0.0.100 tcp dport 6443 dnat ip to 10.0.0.100:16443",
        "ip6 daddr fd00::100 tcp dport 6443 dnat ip6 to [fd00::100]:16443",
    ]
    assert text.count("fib daddr type local tcp flags & (fin | syn | rst | ack) == syn jump services\n") == 2
    assert "112" not in text


def test_the_filter_needs_no_redirect(smallest: str, own_nodes: Pooling) -> None:
    cluster = parse(f"{smallest}[failover]\nvrrp_filter = true\n")
    text = render(cluster, cluster.nodes[1], own_nodes(cluster), "eth0").files["lbha.nft"]
    rules = [line.split(" comment ")[0].strip() for line in text.splitlines() if " l4proto " in line]
    assert rules == [
        "meta l4proto 112 ip saddr 10.0.0.11 accept",
        "meta l4proto 112 ip saddr 10.0.0.13 accept",
        "meta l4proto 112 drop",
    ]
    assert "dnat" not in text and "type nat" not in text


@pytest.mark.parametrize(("address", "taken"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False)])
def test_who_listens_on_every_address_is_seen_without_root(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, address: str, taken: bool
) -> None:
    def refused(endpoint: Endpoint, *, transparent: bool) -> None:  # noqa: ARG001 (as the real one)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(listen, "bind_probe", refused)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        one = replace(cluster, services=(replace(cluster.services[0], port=port),))
        found = listen.taken_ports(one)
        assert set(found) == ({"apiserver"} if taken else set())
        assert all(text.endswith(f"listens on {Endpoint(address, port)}") for text in found.values())
        assert listen.taken_ports(listening(one, Listen.VIP)) == {}
