"""The judges of a node: each one sees its trap, and nothing once it is cured."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from statuses import report

from lbha.config import parse
from lbha.doctor import (
    certificates,
    clients,
    engines,
    files_here,
    firewall,
    kernel,
    kubernetes,
    network,
    peers,
    ports,
    probe,
    running,
    scripts,
    systemd,
    vrrp,
    watched,
)
from lbha.doctor.firewall_rules import iptables_rules
from lbha.doctor.links import Address, Interface, Links
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.doctor.processes import Process
from lbha.doctor.served import Served, answer_of
from lbha.facts import Peer
from lbha.model import CheckTimes, Cluster, Endpoint, Kind
from lbha.vrrp import Advert
from lbha.wiring import verdict
from lbha.wiring.verdict import Way

FATAL, ERROR, WARNING, HINT = Severity

ETH0 = Interface("eth0", 2, "02:00:00:00:00:01", True, True)
LINKS = Links((ETH0,), (Address("eth0", "10.0.0.11", 24),))


def seen(findings: Iterable[Finding]) -> list[Severity]:
    """The severities; every finding says what was seen and what cures it."""
    found = list(findings)
    assert all(each.evidence and each.cure and each.name for each in found)
    return [each.severity for each in found]


@pytest.fixture
def cluster(smallest: str) -> Cluster:
    return parse(smallest)


# engines


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.4.22-f8e3218", [ERROR]), ("2.6.12-1+deb12u4", []), ("3.0.11", [])],
)
def test_haproxy_versions(version: str, expected: list[Severity]) -> None:
    assert seen(engines.judge_haproxy(version)) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.0.20", [ERROR]), ("2.2.4", [ERROR]), ("2.2.7", []), ("2.2.8", [WARNING]), ("2.3.3", [])],
)
def test_keepalived_versions(version: str, expected: list[Severity]) -> None:
    assert seen(engines.judge_keepalived(version)) == expected


def test_a_haproxy_without_transparent_binds() -> None:
    using = "Built with transparent proxy support using: IP_TRANSPARENT IPV6_TRANSPARENT IP_FREEBIND\n"
    bare = "Feature list : +EPOLL +OPENSSL +PROMEX -ZLIB\n"
    assert seen(engines.judge_features(bare + using, nonlocal_bind=False)) == []
    assert seen(engines.judge_features(bare, nonlocal_bind=False)) == [FATAL]
    assert seen(engines.judge_features(bare, nonlocal_bind=True)) == []
    assert seen(engines.judge_features(bare.replace("+PROMEX", "-PROMEX"), nonlocal_bind=True)) == [FATAL]
    with pytest.raises(NotChecked):
        list(engines.judge_features("nonsense", nonlocal_bind=False))


def test_a_real_time_priority_that_kills() -> None:
    conf = "global_defs {\n  vrrp_rt_priority 50\n  vrrp_rlimit_rttime 1000000\n}\n"
    assert seen(engines.judge_real_time(conf, may_raise=True)) == []
    assert seen(engines.judge_real_time(conf, may_raise=False)) == [ERROR]
    assert seen(engines.judge_real_time("  vrrp_rt_priority 50\n", may_raise=True)) == [ERROR]
    with pytest.raises(DoesNotApply):
        list(engines.judge_real_time("vrrp_priority -20\n", may_raise=False))


def test_old_workers() -> None:
    assert seen(engines.judge_workers([])) == []
    assert seen(engines.judge_workers([(7, 20.0, 3)])) == [HINT]
    assert seen(engines.judge_workers([(7, 3000.0, 3)])) == [WARNING]
    assert seen(engines.judge_workers([(pid, 1.0, 1) for pid in range(6)])) == [WARNING]


# running


@pytest.mark.parametrize(
    ("argv", "conf"),
    [
        (("keepalived", "--dont-fork"), "/etc/keepalived/keepalived.conf"),
        (("keepalived", "-f", "/a.conf"), "/a.conf"),
        (("keepalived", "--use-file=/b.conf"), "/b.conf"),
        (("keepalived", "-f/c.conf", "-n"), "/c.conf"),
    ],
)
def test_which_file_a_keepalived_reads(argv: tuple[str, ...], conf: str) -> None:
    assert running.conf_of(Process(1, 0, "keepalived", argv)) == conf


def test_a_keepalived_that_only_answers_is_none() -> None:
    def process(*words: str) -> Process:
        return Process(1, 0, "keepalived", ("keepalived", *words))

    assert running.runs_for_long(process("--dont-fork", "--use-file=/x"))
    for words in (("-v",), ("-t", "-f", "/x"), ("--config-test=/run/log",)):
        assert not running.runs_for_long(process(*words))


def test_another_keepalived() -> None:
    vips, mine = ("10.0.0.100",), "virtual_ipaddress {\n 10.0.0.100/32\n}\n"
    other = running.Other(7, "/x.conf", mine)
    assert seen(running.judge_others([other], vips, 51)) == [FATAL]
    assert seen(running.judge_others([replace(other, text="virtual_router_id 51\n")], vips, 51)) == [FATAL]
    assert seen(running.judge_others([replace(other, text="virtual_router_id 52\n")], vips, 51)) == [WARNING]
    assert seen(running.judge_others([replace(other, text=None)], vips, 51)) == [WARNING]
    assert seen(running.judge_others([replace(other, text="110.0.0.100/32")], vips, 51)) == [WARNING]


# network


def test_the_node_and_its_addresses(cluster: Cluster) -> None:
    assert seen(network.judge_node(cluster.nodes[0], LINKS)) == []
    assert seen(network.judge_node(cluster.nodes[1], LINKS)) == [FATAL]


def test_the_interface(cluster: Cluster) -> None:
    def judged(name: str, links: Links) -> list[Severity]:
        return seen(network.judge_interface(cluster, cluster.nodes[0], name, links))

    assert judged("eth0", LINKS) == []
    assert judged("eth7", LINKS) == [FATAL]
    assert judged("eth0", replace(LINKS, interfaces=(replace(ETH0, up=False),))) == [ERROR]
    assert judged("eth0", replace(LINKS, interfaces=(replace(ETH0, carrier=False),))) == [ERROR]
    narrow = replace(LINKS, addresses=(Address("eth0", "10.0.0.11", 28),))
    assert judged("eth0", narrow) == [WARNING], "the VIP is outside"
    eth1 = replace(ETH0, name="eth1", index=3)
    two = Links((ETH0, eth1), (*LINKS.addresses, Address("eth1", "10.0.0.21", 24)))
    assert judged("eth1", two) == [WARNING], "adverts do not go where the VIP is"


def test_a_vip_that_keepalived_did_not_add(cluster: Cluster) -> None:
    def judged(
        *, prefix: int = 32, where: str = "eth0", master: bool = True, runs: bool = True
    ) -> list[Severity]:
        links = replace(LINKS, addresses=(*LINKS.addresses, Address(where, "10.0.0.100", prefix)))
        return seen(network.judge_vip_here(cluster, "eth0", links, master=master, runs=runs))

    assert seen(network.judge_vip_here(cluster, "eth0", LINKS, master=False, runs=False)) == []
    assert judged() == []
    assert judged(master=False) == [ERROR]
    assert judged(master=False, runs=False) == [ERROR]
    assert judged(prefix=24) == [WARNING]
    assert judged(where="lo") == [ERROR]


def test_who_answers_for_the_vip(cluster: Cluster) -> None:
    stranger, cp2, cp3 = "02:00:00:00:00:99", "02:00:00:00:00:02", "02:00:00:00:00:03"
    nodes = {"10.0.0.12": frozenset({cp2}), "10.0.0.13": frozenset({cp3})}

    def judged(*macs: str, holds: bool = False) -> list[Severity]:
        answers = {**nodes, "10.0.0.100": frozenset(macs)}
        return seen(network.judge_answers(cluster, cluster.nodes[0], ETH0, answers, holds=holds))

    assert judged() == judged(cp2) == judged(holds=True) == []
    assert judged(stranger) == [FATAL]
    assert judged(stranger, cp2) == [FATAL]
    assert judged(cp2, cp3) == [ERROR]
    assert judged(cp2, holds=True) == [ERROR]


def test_arp_frames() -> None:
    mac = bytes.fromhex("020000000001")
    asked = probe.arp_probe(mac, "10.0.0.100")
    assert probe.arp_answer(asked) is None, "a probe claims nothing"
    reply = (
        asked[:14]
        + asked[14:20]
        + b"\0\2"
        + bytes.fromhex("020000000099")
        + bytes([10, 0, 0, 100])
        + mac
        + bytes(4)
    )
    assert probe.arp_answer(reply) == ("10.0.0.100", "02:00:00:00:00:99")
    assert probe.arp_answer(reply[:20]) is None


def test_neighbour_advertisements() -> None:
    assert probe.solicited_node("fd00::100") == "ff02::1:ff00:100"
    target = bytes.fromhex("fd000000000000000000000000000100")
    packet = bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + target + b"\2\1" + bytes.fromhex("020000000099")
    assert probe.advertised(packet) == ("fd00::100", "02:00:00:00:00:99")
    assert probe.advertised(packet[:24]) is None
    assert probe.advertised(bytes([135]) + packet[1:]) is None
    assert probe.advertised(packet[:24] + b"\2\0" + bytes(6)) is None, "an option of no length ends it"


# vrrp


def test_whether_the_holder_is_heard(cluster: Cluster) -> None:
    advert = Advert(3, cluster.virtual_router_id, 200, ("10.0.0.100",))
    assert seen(vrrp.judge_heard(cluster, [("10.0.0.12", advert)])) == []
    assert seen(vrrp.judge_heard(cluster, [])) == [ERROR]
    assert seen(vrrp.judge_heard(cluster, [("10.0.0.77", advert)])) == [ERROR], "a stranger is not the holder"
    assert seen(vrrp.judge_heard(cluster, [("10.0.0.12", advert), ("10.0.0.13", advert)])) == [ERROR]


def test_strangers_on_the_wire(cluster: Cluster) -> None:
    ours = Advert(3, cluster.virtual_router_id, 200, ("10.0.0.100",))
    theirs = replace(ours, addresses=("10.0.0.222",))
    other = replace(theirs, virtual_router_id=cluster.virtual_router_id % 255 + 1)
    assert seen(vrrp.judge_routers(cluster, [("10.0.0.12", ours)])) == []
    assert seen(vrrp.judge_routers(cluster, [("10.0.0.77", ours)])) == [FATAL]
    assert seen(vrrp.judge_routers(cluster, [("10.0.0.77", theirs)])) == [WARNING]
    for changes in ({"version": 2}, {"virtual_router_id": other.virtual_router_id}):
        strange = replace(ours, **changes)  # type: ignore[arg-type]
        assert seen(vrrp.judge_routers(cluster, [("10.0.0.12", strange)])) == [FATAL]
        assert seen(vrrp.judge_heard(cluster, [("10.0.0.12", strange)])) == [ERROR]
    assert seen(vrrp.judge_routers(cluster, [("10.0.0.77", other), ("10.0.0.78", other)])) == [HINT]


# ports


def test_other_programs_on_the_ports(cluster: Cluster) -> None:
    def judged(*found: ports.Listener, redirected: set[str] | None = None, nft: bool = True) -> list[Severity]:
        return seen(ports.judge_ports(cluster, cluster.nodes[0], found, redirected or set(), nft=nft))

    def listener(address: str, port: int, program: str = "nginx") -> ports.Listener:
        return ports.Listener(Endpoint(address, port), program, 7)

    assert judged(listener("10.0.0.11", 6443, "kube-apiserver")) == [], "at the node's address"
    assert judged(listener("::", 2379, "etcd")) == [FATAL]
    assert judged(listener("0.0.0.0", 6443), redirected={"apiserver"}) == []
    assert judged(listener("0.0.0.0", 6443), redirected={"apiserver"}, nft=False) == [FATAL]
    assert judged(listener("10.0.0.100", 16443), redirected={"apiserver"}) == [FATAL]
    assert judged(listener("127.0.0.1", 8404)) == [FATAL]
    assert judged(listener("10.0.0.11", 8406)) == [WARNING]
    six = replace(cluster, vips=("fd00::100",))
    assert seen(ports.judge_ports(six, six.nodes[0], [listener("0.0.0.0", 6443)], set(), nft=True)) == []
    assert seen(ports.judge_ports(six, six.nodes[0], [listener("::", 6443)], set(), nft=True)) == [FATAL]


def test_ports_that_outgoing_connections_may_take(cluster: Cluster) -> None:
    def judged(low: int, reserved: str = "") -> list[Severity]:
        return seen(ports.judge_local_ports(cluster, low, 60999, reserved, {"apiserver"}))

    assert judged(32768) == []
    assert judged(1024) == [WARNING]
    assert judged(1024, "2379,8404,8406,16443") == judged(1024, "2000-20000") == []
    assert judged(1024, "8000-9000,16443") == [WARNING]


# scripts


def test_programs_of_a_keepalived_conf() -> None:
    conf = 'vrrp_script a {\n  script "/usr/bin/x --y z"\n}\nvrrp_script b {\n script /usr/bin/w q\n}\n'
    assert scripts.programs(conf) == ["/usr/bin/x", "/usr/bin/w"]
    assert scripts.programs("vrrp_script a { script '/usr/bin/x --y' ! or /usr/bin/z\n}\n") == ["/usr/bin/x"]
    with pytest.raises(NotChecked):
        scripts.programs("vrrp_script a {\n")


def test_a_script_that_keepalived_would_not_run() -> None:
    def judged(mode: int = 0o755, uid: int = 0, gid: int = 0, above: int = 0o755) -> list[Severity]:
        facts = [
            scripts.PathFacts("/opt", stat.S_IFDIR | above, 0, gid),
            scripts.PathFacts("/opt/x", stat.S_IFREG | mode, uid, gid),
        ]
        return seen(scripts.judge_path("track-script", "/opt/x", facts))

    assert judged() == judged(above=0o1777) == judged(mode=0o775) == []
    assert judged(mode=0o644) == judged(mode=0o757) == judged(uid=1000) == judged(above=0o777) == [ERROR]
    assert judged(mode=0o775, gid=50) == [ERROR]
    assert seen(scripts.judge_path("track-script", "/opt/x", ())) == [ERROR]
    assert seen(scripts.judge_path("track-script", "x", ())) == [ERROR]


def test_a_script_user_that_nobody_is() -> None:
    conf = "global_defs {\n  script_user keepalived_script\n}\n"
    assert seen(scripts.judge_users(conf, lambda name: name == "keepalived_script")) == []
    assert seen(scripts.judge_users(conf, lambda _: False)) == [FATAL]


# peers


def test_nodes_with_different_files() -> None:
    reports = {f"cp{n}": report(n) for n in (1, 2, 3)}
    assert seen(peers.judge_same(reports, "cp1", 3)) == []
    assert seen(peers.judge_same({**reports, "cp2": replace(reports["cp2"], config="0000")}, "cp1", 3)) == [
        ERROR
    ]
    assert seen(peers.judge_same({**reports, "cp2": replace(reports["cp2"], version="9")}, "cp1", 3)) == [HINT]
    with pytest.raises(NotChecked, match="1 of 3 nodes are not heard"):
        list(peers.judge_same({"cp1": reports["cp1"], "cp3": reports["cp3"]}, "cp1", 3))


def test_clocks() -> None:
    assert seen(peers.judge_clocks({"cp2": 0.4, "cp3": -0.9})) == []
    assert seen(peers.judge_clocks({"cp2": 1.5, "cp3": -70.0})) == [WARNING, WARNING]


@pytest.mark.parametrize(("date", "at", "ahead"), [(100, 100.9, 0.0), (100, 99.0, 1.0), (100, 103.0, -2.0)])
def test_a_date_of_whole_seconds_blames_nobody_for_its_fraction(date: float, at: float, ahead: float) -> None:
    assert peers.offset(date, at) == ahead


def test_agents_that_are_not_heard() -> None:
    heard = Peer("cp2", report(2), 1.0, None)
    assert seen(peers.judge_heard((heard,), 1)) == []
    assert seen(peers.judge_heard((replace(heard, problem="no route to host"),), 1)) == [WARNING]
    with pytest.raises(NotChecked):
        list(peers.judge_heard((Peer("cp2"),), 1))


# certificates


NOW = datetime(2026, 6, 1, tzinfo=UTC)
CERTIFICATE = certificates.Certificate("cp1", NOW + timedelta(days=90), frozenset({"10.0.0.100"}), True, True)


@pytest.mark.parametrize(("days", "expected"), [(90, []), (29, [WARNING]), (6, [ERROR]), (-1, [ERROR])])
def test_the_life_of_a_certificate(days: int, expected: list[Severity]) -> None:
    assert (
        seen(certificates.judge_expiry([replace(CERTIFICATE, ends=NOW + timedelta(days=days))], NOW))
        == expected
    )


def test_names_and_usages() -> None:
    clusters_own = ("kubernetes", "kubernetes.default", "kubernetes.default.svc.cluster.local", "localhost")

    def named(*names: str, vips: tuple[str, ...] = ("10.0.0.100",)) -> list[Severity]:
        leads = dict.fromkeys(("api.example", "kubernetes.example", *clusters_own), ("10.0.0.100",))
        several = [replace(CERTIFICATE, where=where, names=frozenset(names)) for where in ("a", "b")]
        return seen(certificates.judge_names(several, vips, lambda name: leads.get(name, ())))

    assert named("10.0.0.100") == named("api.example", "cp1") == named("fd00:0::100", vips=("fd00::100",)) == []
    assert named("kubernetes.example") == []
    assert named("cp1") == named(*clusters_own) == [ERROR], "told once"
    assert named("10.0.0.100", vips=("10.0.0.100", "fd00::100")) == [ERROR]
    server_only = replace(CERTIFICATE, client=False)
    assert seen(certificates.judge_usage([CERTIFICATE], [CERTIFICATE])) == []
    assert seen(certificates.judge_usage([server_only], [])) == [ERROR]
    assert seen(certificates.judge_usage([], [server_only])) == [WARNING]


# kubernetes


def asked(kind: Kind = Kind.KUBE_APISERVER, **answer: object) -> Served:
    return replace(Served("api", kind, Endpoint("10.0.0.11", 6443)), **answer)  # type: ignore[arg-type]


def test_who_is_let_in() -> None:
    for status in (200, 500):
        assert seen(kubernetes.judge_answers([asked(status=status)])) == []
    for status in (401, 403):
        assert seen(kubernetes.judge_answers([asked(status=status)])) == [ERROR]
    demanded = asked(Kind.ETCD, certificate=b"x", problem="tlsv13 alert certificate required")
    assert seen(kubernetes.judge_answers([demanded])) == [ERROR]
    assert seen(kubernetes.judge_answers([asked(Kind.ETCD, tls=False, problem="it speaks no HTTP")])) == [ERROR]
    told = asked(Kind.ETCD, tls=False, status=400, said="Client sent an HTTP request to an HTTPS server.")
    assert seen(kubernetes.judge_answers([told])) == [ERROR]
    assert seen(kubernetes.judge_answers([asked(Kind.ETCD, problem="connection refused")])) == []


def test_http_answers() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nDate: Mon, 01 Jun 2026 00:00:00 GMT\r\n\r\nno\x1b[1m way"
    assert answer_of(head) == (403, "Mon, 01 Jun 2026 00:00:00 GMT", "no [1m way")
    assert answer_of(b"SSH-2.0-OpenSSH\r\n") is None and answer_of(b"") is None


TIMES = CheckTimes(0.5, 0.1, 2.0, 2, 3)


@pytest.mark.parametrize(
    ("value", "expected"), [("70s", []), ("1m10s", []), ("500ms", [WARNING]), (None, [HINT]), ("0", [HINT])]
)
def test_the_shutdown_delay(value: str | None, expected: list[Severity]) -> None:
    assert seen(kubernetes.judge_delay("kube-apiserver", value, TIMES)) == expected


def test_a_duration_that_makes_no_sense() -> None:
    with pytest.raises(NotChecked):
        kubernetes.seconds("soon")


def test_a_slow_haproxy(cluster: Cluster) -> None:
    assert seen(kubernetes.judge_detection(cluster)) == []
    service = cluster.services[0]
    slow = replace(cluster, services=(replace(service, check=CheckTimes(5.0, 5.0, 2.0, 2, 3)),))
    assert seen(kubernetes.judge_detection(slow)) == [WARNING]


def test_clients_past_the_vip() -> None:
    def judged(*found: verdict.Finding) -> list[Severity]:
        return seen(clients.judge_clients(found))

    def kubelet(way: Way) -> verdict.Finding:
        return verdict.Finding(way, "kubelet", "https://10.0.0.11:6443: past the VIP", ("kubelet.conf",))

    assert judged(kubelet(Way.VIP)) == judged(kubelet(Way.OWN)) == []
    assert judged(kubelet(Way.PAST), kubelet(Way.BAD)) == [WARNING, ERROR]
    with pytest.raises(DoesNotApply):
        judged(kubelet(Way.ABSENT), verdict.Finding(Way.BAD, "etcd certificate", "does not name the VIP"))
    with pytest.raises(NotChecked, match=r"admin\.conf"):
        judged(kubelet(Way.VIP), verdict.Finding(Way.BAD, "unreadable", "admin.conf: permission denied"))


# kernel


def test_arp_settings() -> None:
    assert seen(kernel.judge_arp("eth0", arp_ignore=1, drop_gratuitous_arp=0)) == []
    assert seen(kernel.judge_arp("eth0", arp_ignore=8, drop_gratuitous_arp=1)) == [ERROR, WARNING]


def test_reverse_path() -> None:
    eth1 = replace(ETH0, name="eth1")
    two = Links((ETH0, eth1), ())
    assert seen(kernel.judge_reverse_path(two, {"lo": 1, "eth0": 1, "eth1": 2})) == [HINT]
    assert seen(kernel.judge_reverse_path(two, {"eth0": 2, "eth1": 2})) == []
    assert seen(kernel.judge_reverse_path(two, {"lo": 1, "eth0": 1})) == [], "one way out"


def test_forwarding() -> None:
    assert seen(kernel.judge_forwarding("eth0", {"ipv4": 1})) == []
    assert seen(kernel.judge_forwarding("eth0", {"ipv4": 1, "ipv6": 0})) == [HINT]


def test_ipv6_and_the_table_of_connections() -> None:
    assert seen(kernel.judge_ipv6(("fd00::100",), "eth0", False)) == []
    assert seen(kernel.judge_ipv6(("fd00::100",), "eth0", True)) == [FATAL]
    with pytest.raises(DoesNotApply):
        list(kernel.judge_ipv6(("10.0.0.100",), "eth0", True))
    assert seen(kernel.judge_room(100, 1000, redirects=True)) == []
    assert seen(kernel.judge_room(950, 1000, redirects=True)) == [ERROR]
    assert seen(kernel.judge_room(950, 1000, redirects=False)) == [WARNING]


# files


def test_modes() -> None:
    def judged(what: str, mode: int, uid: int = 0, gid: int = 0) -> list[Severity]:
        return seen(files_here.judge_modes([files_here.Seen("/x", what, mode, uid, gid)]))

    assert judged("acts", 0o644) == judged("acts", 0o664) == judged("acts", 0o640, gid=50) == []
    assert judged("acts", 0o666) == judged("acts", 0o644, uid=7) == judged("acts", 0o664, gid=50) == [ERROR]
    assert judged("secret", 0o600) == judged("secret", 0o600, uid=7) == judged("secret", 0o640) == []
    assert judged("secret", 0o644) == judged("secret", 0o640, gid=50) == [WARNING]
    assert judged("socket", 0o600) == [] and judged("socket", 0o666) == [ERROR]


def test_room() -> None:
    def judged(free: int, inodes: int | None = 10_000, *, read_only: bool = False) -> list[Severity]:
        return seen(files_here.judge_room("/var", free, inodes, read_only=read_only))

    assert judged(1 << 30) == judged(1 << 30, None) == []
    assert judged(10 << 20) == [WARNING]
    assert judged(1 << 20) == judged(1 << 30, 3) == judged(1 << 30, read_only=True) == [ERROR]


def test_watches() -> None:
    assert seen(watched.judge_watches("/run/lbha", 7, frozenset({7, 8}), [])) == []
    assert seen(watched.judge_watches("/run/lbha", 7, frozenset({8}), [])) == [ERROR]
    assert seen(watched.judge_watches("/run/lbha", 7, frozenset({7}), ["up"])) == [ERROR]


# systemd


GOOD = {"LoadState": "loaded", "UnitFileState": "enabled", "Restart": "always", "RuntimeDirectory": ""}


def test_units() -> None:
    def judged(agent: bool = True, **changed: str) -> list[Severity]:
        shown = {"haproxy.service": GOOD, "keepalived.service": {**GOOD, **changed}}
        return seen(systemd.judge_units(shown, "/run/lbha", agent=agent))

    assert judged() == []
    assert judged(UnitFileState="disabled") == [WARNING]
    assert judged(Restart="no") == [WARNING] and judged(False, Restart="no") == [ERROR]
    assert judged(RuntimeDirectory="lbha") == [ERROR]
    assert judged(LoadState="not-found") == [WARNING]


def test_networkd() -> None:
    kept = "[Match]\nName=eth0\n[Network]\nKeepConfiguration=static\n"
    assert seen(systemd.judge_networkd("eth0", "/x.network", [kept])) == []
    assert seen(systemd.judge_networkd("eth0", "/x.network", ["[Network]\nDHCP=yes\n"])) == [WARNING]
    assert seen(systemd.judge_networkd("eth0", "/x.network", [kept, "[Network]\nKeepConfiguration=no"])) == [
        WARNING
    ]
    wrong = "[Match]\nKeepConfiguration=static\n"
    assert seen(systemd.judge_networkd("eth0", "/x.network", [wrong])) == [WARNING], "another section"


def test_network_manager() -> None:
    assert seen(systemd.judge_network_manager("eth0", {"managed": "true"})) == [WARNING]
    assert seen(systemd.judge_network_manager("eth0", {"managed": "false"})) == []


# firewall (nft's own words: tests/engines)


IPTABLES = """\
*filter
:INPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:MINE - [0:0]
-A INPUT -j MINE
-A MINE {rule}
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j KUBE-FORWARD
-A OUTPUT {out}
COMMIT
"""


@pytest.mark.parametrize(
    ("rule", "out", "expected"),
    [
        ("-j RETURN", "-j ACCEPT", []),
        ("-m conntrack --ctstate INVALID -j DROP", "-j ACCEPT", [WARNING]),
        ("-m state --state INVALID,NEW -j REJECT", "-j ACCEPT", [WARNING]),
        ("-m conntrack ! --ctstate INVALID -j DROP", "-j ACCEPT", []),
        ("-p vrrp -j DROP", "-j ACCEPT", [ERROR]),
        ("-i cali+ -m conntrack --ctstate INVALID -j DROP", "-j ACCEPT", []),
        ("-i eth+ -m conntrack --ctstate INVALID -j DROP", "-j ACCEPT", [WARNING]),
        ("! -i lo -m conntrack --ctstate INVALID -j DROP", "-j ACCEPT", [WARNING]),
        ("-s 10.0.0.99/32 -p 112 -j DROP", "-j ACCEPT", []),
        ("-s 10.0.0.12/32 -p 112 -j DROP", "-j ACCEPT", [ERROR]),
        ("! -s 10.0.0.0/24 -p 112 -j DROP", "-j ACCEPT", []),
        ("-s 10.0.0.12/32 -p 112 -j ACCEPT\n-A MINE -p 112 -j DROP", "-j ACCEPT", []),
        ("-p tcp -m tcp --tcp-flags RST RST -j DROP", "-j ACCEPT", []),
        ("-j RETURN", "-p tcp -m tcp --tcp-flags RST RST -j DROP", [WARNING]),
        ("-d 10.0.0.100/32 -p tcp -j ACCEPT\n-A MINE -m conntrack --ctstate INVALID -j DROP", "-j ACCEPT", []),
    ],
)
def test_iptables(rule: str, out: str, expected: list[Severity]) -> None:
    rules = iptables_rules(IPTABLES.format(rule=rule, out=out), "iptables").on_our_way("eth0")
    assert seen(firewall.judge_rules(rules, ["10.0.0.100"], ["10.0.0.12"])) == expected


@pytest.mark.parametrize(
    ("mine", "deaf"),
    [
        ("-j RETURN", ["iptables filter INPUT"]),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", ["iptables filter INPUT"]),
        ("-i lo -j ACCEPT", ["iptables filter INPUT"]),
        ("-p tcp -j ACCEPT", ["iptables filter INPUT"]),
        ("-p vrrp -j ACCEPT", []),
        ("-s 10.0.0.0/24 -j ACCEPT", []),
        ("-m set --match-set nodes src -m comment --comment 'the nodes' -j ACCEPT", []),
        ("-i eth+ -j ACCEPT", []),
    ],
)
@pytest.mark.parametrize("how", [(":INPUT ACCEPT", ":INPUT DROP"), ("-j MINE", "-j MINE\n-A INPUT -j REJECT")])
def test_a_chain_that_lets_nothing_through_but(mine: str, deaf: list[str], how: tuple[str, str]) -> None:
    text = IPTABLES.format(rule=mine, out="-j ACCEPT")
    assert list(iptables_rules(text, "iptables").deaf_chains("eth0", six=False)) == []
    rules = iptables_rules(text.replace(*how), "iptables")
    assert list(rules.deaf_chains("eth0", six=False)) == deaf
    assert list(rules.deaf_chains("eth0", six=True)) == []
