"""`lbha wiring --check`: who goes through the VIP. Whole trees of files, as kubeadm and others lay them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lbha import config, pki
from lbha.cli.wiring import command
from lbha.model import Cluster, Kind
from lbha.wiring import PIECES
from lbha.wiring.found import Certificate, Contact, Found, Unreadable, commands_of_manifest, contacts, server
from lbha.wiring.found import command as command_line
from lbha.wiring.verdict import Finding, Here, Way, judge

VIP = "https://10.0.0.100:6443"
OWN = "https://10.0.0.11:6443"
OTHER = "https://10.0.0.12:6443"
NAMES = {
    "api.example.com": ("10.0.0.100",),
    "cp2.example.com": ("10.0.0.12",),
    "all.example.com": ("10.0.0.100", "10.0.0.12"),
}


def kubeconfig(url: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "unused", "cluster": {"server": "https://10.9.9.9:1"}},
                {"name": "kubernetes", "cluster": {"server": url, "certificate-authority-data": "Q0E="}},
            ],
            "contexts": [{"name": "me@kubernetes", "context": {"cluster": "kubernetes", "user": "me"}}],
            "current-context": "me@kubernetes",
            "users": [{"name": "me", "user": {}}],
        }
    )


def pod(program: str, *flags: str) -> str:
    containers = [{"name": program, "command": [program, *flags]}]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers}})


@pytest.fixture
def cluster(smallest: str) -> Cluster:
    return config.parse(smallest)


def verdict(cluster: Cluster, client: str, kind: Kind, *urls: str) -> Finding:
    here = Here(frozenset({"10.0.0.11"}), lambda name: NAMES.get(name, ()))
    (found,) = (
        each
        for each in judge(cluster, Found((Contact(client, kind, urls, "a file"),)), here)
        if each.way is not Way.ABSENT
    )
    return found


API, ETCD = Kind.KUBE_APISERVER, Kind.ETCD


@pytest.mark.parametrize(
    ("client", "kind", "urls", "way"),
    [
        ("kubelet", API, [VIP], Way.VIP),
        ("kubelet", API, ["https://api.example.com:6443"], Way.VIP),
        ("kubelet", API, [OWN], Way.OWN),
        ("kubelet", API, [OTHER], Way.PAST),
        ("kubelet", API, ["https://cp2.example.com:6443"], Way.PAST),
        ("kubelet", API, ["https://all.example.com:6443"], Way.PAST),
        ("kubelet", API, ["https://nowhere.example.com:6443"], Way.BAD),
        ("kubelet", API, ["https://10.0.0.100"], Way.PAST),  # port 443
        ("kubelet", API, ["https://10.0.0.100:99999"], Way.BAD),
        ("kube-proxy", API, [OWN], Way.PAST),
        ("kube-proxy", API, ["https://127.0.0.1:6443"], Way.PAST),
        ("kube-scheduler", API, ["https://127.0.0.1:6443"], Way.OWN),
        ("kube-scheduler", API, [OTHER], Way.PAST),
        ("kube-controller-manager", API, [OWN], Way.OWN),
        ("kube-apiserver", ETCD, ["http://10.0.0.100:2379"], Way.VIP),
        ("kube-apiserver", ETCD, ["http://127.0.0.1:2379"], Way.OWN),
        ("kube-apiserver", ETCD, ["http://10.0.0.12:2379"], Way.PAST),
        ("kube-apiserver", ETCD, [f"http://10.0.0.1{n}:2379" for n in (1, 2, 3)], Way.MEMBERS),
        ("kube-apiserver", ETCD, ["http://10.0.0.100:2379", "http://10.0.0.11:2379"], Way.MEMBERS),
        ("flanneld", ETCD, ["http://10.0.0.11:2379"], Way.PAST),
        ("flanneld", ETCD, ["10.0.0.100:2379"], Way.VIP),
    ],
)
def test_each_way_has_its_name(cluster: Cluster, client: str, kind: Kind, urls: list[str], way: Way) -> None:
    found = verdict(cluster, client, kind, *urls)
    assert found.way is way, found
    assert found.wrong is (way in (Way.PAST, Way.BAD))
    assert urls[0] in found.text


TWO = config.parse(
    """[cluster]\nname = "two"\nvip = "10.0.0.100"\n[nodes]\ncp1 = "10.0.0.11"\n
    [services.api]\nkind = "kube-apiserver"\n[services.etcd]\nkind = "etcd"\n"""
)


@given(
    client=st.sampled_from(["kubelet", "kube-apiserver", "flanneld"]),
    kind=st.sampled_from([API, ETCD]),
    urls=st.lists(
        st.one_of(st.text(), st.from_regex(r"https?://[a-z0-9.:\[\]%-]{0,20}")), min_size=1, max_size=3
    ),
)
def test_any_url_has_a_verdict_in_one_line(client: str, kind: Kind, urls: list[str]) -> None:
    found = verdict(TWO, client, kind, *urls)
    assert found.text.isprintable()


def test_a_list_of_members_that_is_out_of_date_is_told(cluster: Cluster) -> None:
    urls = ["http://10.0.0.11:2379", "http://10.0.0.12:2379", "http://10.0.0.19:2379"]
    text = verdict(cluster, "kube-apiserver", ETCD, *urls).text
    assert "without 10.0.0.13:2379" in text and "with 10.0.0.19:2379, not in lbha.toml" in text


def test_ipv6_in_brackets() -> None:
    text = """
    [cluster]\nname = "six"\nvip = "fd00::100"\n[nodes]\ncp1 = "fd00::11"
    [services.apiserver]\nkind = "kube-apiserver"
    """
    made = config.parse("\n".join(line.strip() for line in text.splitlines()))
    assert verdict(made, "kubelet", API, "https://[fd00:0::100]:6443").way is Way.VIP
    assert verdict(made, "kube-proxy", API, "https://[fd00::11]:6443").way is Way.PAST


@pytest.mark.parametrize("argv", [["kube-proxy", "--master=U"], ["/usr/local/bin/kube-proxy", "--master", "U"]])
def test_a_command_line_in_either_form(argv: list[str]) -> None:
    each = command_line([word.replace("U", VIP) for word in argv], {}, "process 7")
    assert each is not None
    assert [found.urls for found in contacts(each, read_nothing)] == [(VIP,)]


def read_nothing(path: str) -> str:
    raise Unreadable(f"{path} is not needed")


def test_flannel_by_flag_by_environment_and_by_the_apiserver() -> None:
    def found(argv: list[str], environment: dict[str, str]) -> list[tuple[Kind, tuple[str, ...]]]:
        each = command_line(["flanneld", *argv], environment, "process 7")
        assert each is not None
        return [(contact.kind, contact.urls) for contact in contacts(each, read_nothing)]

    url = "http://10.0.0.100:2379"
    assert found([f"-etcd-endpoints={url}"], {}) == [(ETCD, (url,))]
    assert found([], {"FLANNELD_ETCD_ENDPOINTS": f"{url}, {url}"}) == [(ETCD, (url, url))]
    in_cluster = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert found(["--kube-subnet-mgr"], in_cluster) == [(API, ("https://10.96.0.1:443",))]
    assert found(["--kube-subnet-mgr", f"--kube-api-url={VIP}"], in_cluster) == [(API, (VIP,))]


@pytest.mark.parametrize(
    ("host", "way"), [("10.96.0.1", Way.SERVICE), ("10.0.0.100", Way.VIP), ("10.0.0.12", Way.PAST)]
)
def test_a_pod_that_asks_the_kubernetes_service(cluster: Cluster, host: str, way: Way) -> None:
    port = "443" if way is Way.SERVICE else "6443"
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    each = command_line(["flanneld", "--kube-subnet-mgr"], environment, "process 7")
    assert each is not None
    findings = judge(cluster, Found(tuple(contacts(each, read_nothing))), Here(frozenset(), NAMES.__getitem__))
    assert [found.way for found in findings if found.client == "flanneld"] == [way]


def test_kube_proxy_names_its_kubeconfig_in_its_configuration() -> None:
    files = {
        "/kp/config.conf": "clientConnection:\n  kubeconfig: /kp/kubeconfig.conf",
        "/kp/kubeconfig.conf": kubeconfig(OTHER),
    }
    each = command_line(["kube-proxy", "--config=/kp/config.conf"], {}, "process 7")
    assert each is not None
    assert [found.urls for found in contacts(each, files.__getitem__)] == [(OTHER,)]


@given(st.text())
def test_garbage_is_refused_in_one_line(text: str) -> None:
    for read in (server, lambda text: commands_of_manifest(text, "a file")):
        try:
            read(text)
        except Unreadable as error:
            assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "spec: {containers: 5}",
        "spec: {containers: [{command: 5, args: {a: b}, env: x}]}",
        "spec: {containers: [{command: [etcd], env: [1, {name: 2}]}]}",
    ],
)
def test_odd_pods_are_no_pods(text: str) -> None:
    assert all(each.program == "etcd" for each in commands_of_manifest(text, "a file"))


def test_yaml_is_data() -> None:
    with pytest.raises(Unreadable, match="not YAML"):
        server("!!python/object/apply:os.system ['touch /tmp/owned']")


class Tree:
    """A node's files below a directory."""

    def __init__(self, root: Path, toml: str) -> None:
        self.root, self._toml = root, root / "lbha.toml"
        self._toml.write_text(toml)

    def lay(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    def certificate(self, path: str, toml: str, vip: bool) -> None:
        """One that names the VIP, which is cp1's address then, or only cp1."""
        vip_is_cp1 = toml.replace('"10.0.0.100"', '"10.0.0.9"').replace('"10.0.0.11"', '"10.0.0.100"')
        named = config.parse(vip_is_cp1 if vip else toml)
        out = self.root / ("with" if vip else "without")
        pki.init(named, out)
        self.lay(path, (out / "cp1" / "node.crt").read_bytes())

    def check(self, *more: str) -> tuple[int, dict[str, list[str]]]:
        """The exit code, and the lines by client."""
        arguments = ["-c", str(self._toml), "--check", "--root", str(self.root), *more]
        done = CliRunner().invoke(command, arguments, standalone_mode=False)
        assert done.exception is None, done.exception
        lines: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            way, client = line.split()[:2]
            lines.setdefault(client, []).append(f"{way} {line[8:]}")
        return done.return_value, lines


@pytest.fixture
def tree(tmp_path: Path, smallest: str) -> Tree:
    """A master that kubeadm made, all of it through the VIP or as kubeadm sets it."""
    made = Tree(tmp_path, smallest)
    for name, url in (("kubelet", VIP), ("admin", VIP), ("controller-manager", OWN), ("scheduler", OWN)):
        made.lay(f"etc/kubernetes/{name}.conf", kubeconfig(url))
    made.lay("etc/kubernetes/cloud.conf", "[Global]\nzone = here\n")
    for name, stem in (("kube-controller-manager", "controller-manager"), ("kube-scheduler", "scheduler")):
        made.lay(
            f"etc/kubernetes/manifests/{name}.yaml", pod(name, f"--kubeconfig=/etc/kubernetes/{stem}.conf")
        )
    flags = ("--etcd-servers=http://10.0.0.100:2379", "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt")
    made.lay("etc/kubernetes/manifests/kube-apiserver.yaml", pod("kube-apiserver", *flags))
    made.certificate("etc/kubernetes/pki/apiserver.crt", smallest, vip=True)
    return made


def test_a_node_that_goes_through_the_vip_is_well(tree: Tree, cluster: Cluster) -> None:
    tree.lay("etc/default/etcd", PIECES["etcd"](cluster)["etcd/new/cp1.env"])
    code, lines = tree.check("--node", "cp1")
    assert code == 0, lines
    assert lines["kubelet"][0].startswith("vip ") and lines["admin"][0].startswith("vip ")
    (scheduler,) = lines["kube-scheduler"]
    assert scheduler.startswith("own ") and "scheduler.conf" in scheduler and "kube-scheduler.yaml" in scheduler
    assert lines["kube-proxy"] == ["- kube-proxy                  not found here"]
    assert any("names 10.0.0.100" in line for line in lines["kube-apiserver"])
    assert lines["etcd"][0].startswith("own ")
    assert not any("cloud.conf" in line for listed in lines.values() for line in listed)


def test_who_goes_past_it_is_named_with_the_address(tree: Tree) -> None:
    tree.lay("etc/kubernetes/kubelet.conf", kubeconfig(OTHER))
    code, lines = tree.check("--node", "cp1")
    assert code == 1
    (kubelet,) = lines["kubelet"]
    assert kubelet.startswith("PAST ") and OTHER in kubelet and "of cp2" in kubelet


def test_a_certificate_without_the_vip_is_told(tree: Tree, smallest: str) -> None:
    tree.certificate("etc/kubernetes/pki/apiserver.crt", smallest, vip=False)
    code, lines = tree.check("--node", "cp1")
    assert code == 1
    assert any("does not name 10.0.0.100" in line for line in lines["kube-apiserver"])


def test_the_vip_at_the_port_of_a_second_service_of_the_kind(smallest: str) -> None:
    two = config.parse(f'{smallest}\n[services.events]\nkind = "etcd"\nport = 2381\n')
    for port, way in ((2379, Way.VIP), (2381, Way.VIP), (2380, Way.PAST)):
        contact = Contact("kube-apiserver", Kind.ETCD, (f"http://10.0.0.100:{port}",), "a file")
        (told,) = [
            each for each in judge(two, Found((contact,)), Here(frozenset(), lambda _: ())) if each.sources
        ]
        assert told.way is way


@pytest.mark.parametrize(("host", "way"), [("api.example.com", Way.VIP), ("cp2.example.com", Way.BAD)])
def test_a_certificate_may_name_a_host_that_leads_to_the_vip(cluster: Cluster, host: str, way: Way) -> None:
    shown = Certificate("kube-apiserver", frozenset({"10.0.0.11", host}), "a file")
    here = Here(frozenset(), lambda name: NAMES.get(name, ()))
    (told,) = [
        each for each in judge(cluster, Found(certificates=(shown,)), here) if "certificate" in each.client
    ]
    assert told.way is way


def test_a_member_that_advertises_the_vip_is_told(tree: Tree) -> None:
    tree.lay("etc/default/etcd", 'ETCD_NAME=cp1\nETCD_ADVERTISE_CLIENT_URLS="http://10.0.0.100:2379"\n')
    code, lines = tree.check("--node", "cp1")
    assert code == 1 and lines["etcd"][0].startswith("BAD ")


def test_what_cannot_be_read_is_one_line_each(tree: Tree) -> None:
    tree.lay("etc/kubernetes/kubelet.conf", "{")
    tree.lay("etc/kubernetes/admin.conf", b"\xff\xfe")
    tree.lay("etc/kubernetes/scheduler.conf", "")
    tree.lay("etc/kubernetes/manifests/kube-apiserver.yaml", "- not\n- a pod\n")
    tree.lay("etc/default/etcd", 'ETCD_NAME="cp1\n')
    tree.lay("etc/kubernetes/pki/apiserver.crt", "no PEM")
    (tree.root / "etc/kubernetes/pipe.conf").mkdir()
    code, lines = tree.check("--node", "cp1")
    assert code == 1
    bad = [line for listed in lines.values() for line in listed if line.startswith("BAD ")]
    # scheduler.conf is told by itself, and by the manifest that names it.
    for file in (
        "kubelet.conf",
        "admin.conf",
        "scheduler.conf",
        "kube-apiserver.yaml",
        "default/etcd",
        "apiserver.crt",
    ):
        assert any(file in line for line in bad), (file, bad)


def test_a_worker_has_no_masters_programs_and_no_apiserver_of_its_own(tmp_path: Path, smallest: str) -> None:
    worker = Tree(tmp_path, smallest)
    worker.lay("etc/kubernetes/kubelet.conf", kubeconfig("https://127.0.0.1:6443"))
    code, lines = worker.check()
    assert code == 1 and lines["kubelet"][0].startswith("PAST "), "a proxy of its own is not the VIP"
    worker.lay("etc/kubernetes/kubelet.conf", kubeconfig(VIP))
    code, lines = worker.check()
    assert code == 0 and lines["kubelet"][0].startswith("vip ")
    assert lines["kube-apiserver"] == ["- kube-apiserver           not found here"]
