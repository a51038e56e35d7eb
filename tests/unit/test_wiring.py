"""`lbha wiring`: what it prints parses as what it is, and says what lbha.toml says."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lbha import config
from lbha.cli.wiring import command
from lbha.discovery import discover
from lbha.discovery.etcd_env import parse_env
from lbha.errors import ConfigError, LbhaError
from lbha.model import Cluster
from lbha.wiring import PIECES, Absent, pieces

TLS = 'tls = { ca = "/pki/ca.crt", cert = "/pki/c.crt", key = "/pki/c.key" }'


def cluster(nodes: int = 3, *, six: bool = False, api: str = "", etcd: str | None = "") -> Cluster:
    net = "fd00::" if six else "10.0.0."
    text = f'[cluster]\nname = "prod"\nvip = "{net}100"\n[nodes]\n'
    text += "".join(f'cp{n} = "{net}{10 + n}"\n' for n in range(1, nodes + 1))
    text += f'[services.apiserver]\nkind = "kube-apiserver"\n{api}\n'
    return config.parse(text if etcd is None else f'{text}[services.etcd]\nkind = "etcd"\n{etcd}\n')


def documents(text: str) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def flags(text: str) -> dict[str, str]:
    """The lines that are no comments; each flag once, or pasting it would be a mistake."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = dict(line.removeprefix("--").split("=", 1) for line in lines)
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize("six", [False, True])
def test_kubeadm_points_at_the_vip_and_certifies_every_name(six: bool) -> None:
    made = cluster(six=six, etcd=TLS)
    found = documents(PIECES["kubeadm"](made)["kubeadm.yaml"])["ClusterConfiguration"]
    vip = "[fd00::100]" if six else "10.0.0.100"
    assert found["controlPlaneEndpoint"] == f"{vip}:6443"
    sans = found["apiServer"]["certSANs"]
    assert set(sans) == {vip.strip("[]"), *(node.address for node in made.nodes), "cp1", "cp2", "cp3"}
    assert found["etcd"]["external"]["endpoints"] == [f"https://{vip}:2379"]
    assert set(found["etcd"]["external"]) == {"endpoints", "caFile", "certFile", "keyFile"}
    assert "local" not in found["etcd"], "kubeadm takes one of the two"


def test_kubeadm_hears_of_other_ports_and_of_no_etcd() -> None:
    made = cluster(api="port = 8443\ntarget_port = 7443", etcd=None)
    found = documents(PIECES["kubeadm"](made)["kubeadm.yaml"])
    assert found["ClusterConfiguration"]["controlPlaneEndpoint"] == "10.0.0.100:8443"
    assert found["InitConfiguration"]["localAPIEndpoint"] == {"bindPort": 7443}
    assert "etcd" not in found["ClusterConfiguration"]
    assert "redirect" not in PIECES["kubeadm"](made)["kubeadm.yaml"], "their ports do not meet"
    assert 'listen = "redirect"' in PIECES["kubeadm"](cluster())["kubeadm.yaml"]


@pytest.mark.parametrize("six", [False, True])
def test_the_apiserver_and_flannel_ask_etcd_at_the_vip_or_its_members(six: bool) -> None:
    made = cluster(six=six, etcd=TLS)
    vip = "[fd00::100]" if six else "10.0.0.100"
    all_members = ",".join(
        f"https://[{n.address}]:2379" if six else f"https://{n.address}:2379" for n in made.nodes
    )
    for piece, file, flag in (
        ("apiserver", "apiserver.flags", "etcd-servers"),
        ("flannel", "flannel.flags", "etcd-endpoints"),
    ):
        text = PIECES[piece](made)[file]
        assert flags(text)[flag] == f"https://{vip}:2379"
        assert {"etcd-cafile", "etcd-certfile", "etcd-keyfile"} < set(flags(text))
        assert f"# --{flag}={all_members}\n" in text, "the other way stands beside it"


def test_an_etcd_without_tls_is_http_everywhere() -> None:
    made, absent = pieces(cluster())
    assert absent == {}
    texts = {name: text for files in made.values() for name, text in files.items()}
    for name, text in texts.items():
        if name.startswith(("etcd/", "flannel", "apiserver")):
            assert "https://" not in text and "FILE" not in text, name


@pytest.mark.parametrize("six", [False, True])
def test_kubeconfigs_name_the_vip(six: bool) -> None:
    url = "https://[fd00::100]:6443" if six else "https://10.0.0.100:6443"
    files = PIECES["kubeconfig"](cluster(six=six))
    (entry,) = yaml.safe_load(files["kubeconfig/cluster.conf"])["clusters"]
    assert entry["cluster"]["server"] == url
    patch = yaml.safe_load(files["kubeconfig/kube-proxy-patch.yaml"])
    (entry,) = yaml.safe_load(patch["data"]["kubeconfig.conf"])["clusters"]
    assert entry["cluster"]["server"] == url
    script = files["kubeconfig/set-server.sh"]
    for component in ("kubelet", "kube-proxy", "controller-manager", "scheduler"):
        assert component in script
    assert f"--server='{url}'" in script


def test_rbac_allows_what_is_read_and_no_more() -> None:
    roles = [each for each in yaml.safe_load_all(PIECES["rbac"](cluster())["rbac.yaml"]) if each]
    assert [each["kind"] for each in roles] == ["Role", "RoleBinding"]
    (rule,) = roles[0]["rules"]
    assert rule["verbs"] == ["get"] and rule["resourceNames"] == ["kube-controller-manager", "kube-scheduler"]
    discovering = PIECES["rbac"](cluster(api='backends = "kubernetes"'))["rbac.yaml"]
    assert [each["kind"] for each in yaml.safe_load_all(discovering) if each] == ["Role", "RoleBinding"] * 2


@given(
    count=st.integers(1, 9), six=st.booleans(), secure=st.booleans(), port=st.sampled_from([2379, 22379, 65535])
)
def test_the_members_of_one_cluster_agree(count: int, six: bool, secure: bool, port: int) -> None:
    made = cluster(count, six=six, etcd=f"target_port = {port}\n{TLS if secure else ''}")
    files = PIECES["etcd"](made)
    new = [parse_env(files[f"etcd/new/{node.name}.env"]) for node in made.nodes]
    assert {each["ETCD_INITIAL_CLUSTER_STATE"] for each in new} == {"new"}
    assert len({each["ETCD_INITIAL_CLUSTER"] for each in new}) == 1
    assert len({each["ETCD_INITIAL_CLUSTER_TOKEN"] for each in new}) == 1
    listed = dict(entry.split("=", 1) for entry in new[0]["ETCD_INITIAL_CLUSTER"].split(","))
    for each in new:
        assert listed.pop(each["ETCD_NAME"]) == each["ETCD_INITIAL_ADVERTISE_PEER_URLS"]
        assert each["ETCD_ADVERTISE_CLIENT_URLS"] in each["ETCD_LISTEN_CLIENT_URLS"].split(",")
        everything = " ".join(each.values())
        assert not re.search(r"0\.0\.0\.0|\[::\]", everything), "haproxy has the VIP's port"
        assert not any(vip in everything for vip in made.vips), "a member is never the VIP"
        assert ("ETCD_CERT_FILE" in each) is secure
    assert listed == {}
    for node, first in zip(made.nodes, new, strict=True):
        joining = parse_env(files[f"etcd/existing/{node.name}.env"])
        assert joining == first | {"ETCD_INITIAL_CLUSTER_STATE": "existing"}


def test_too_few_members_are_told_and_the_certificate_must_name_the_vip() -> None:
    few = PIECES["etcd"](cluster(2, etcd=TLS))["etcd/new/cp1.env"]
    assert "2 members survive no failure" in few
    assert "must name: 10.0.0.100, 10.0.0.11, cp1, 127.0.0.1, localhost" in few
    assert "an odd number is better" in PIECES["etcd"](cluster(4))["etcd/new/cp1.env"]
    assert "survive" not in PIECES["etcd"](cluster(3))["etcd/new/cp1.env"]


def test_lbha_reads_the_files_that_it_makes(tmp_path: Path) -> None:
    """Its own discovery finds every member, from any member's file."""
    for six in (False, True):
        made = cluster(5, six=six, etcd=f"target_port = 22379\n{TLS}")
        for name, text in PIECES["etcd"](made).items():
            if name.endswith(".env"):
                file = tmp_path / "etcd.env"
                file.write_text(text)
                reading = cluster(5, six=six, etcd=f'target_port = 1\nbackends = "etcd-env:{file}"')
                pool = discover(reading, None)["etcd"]
                assert [(b.name, b.endpoint.address, b.endpoint.port) for b in pool.backends] == [
                    (node.name, node.address, 22379) for node in made.nodes
                ]


def test_members_elsewhere_have_names_of_their_own() -> None:
    made = cluster(etcd='backends = ["10.0.0.11", "10.0.0.21", "10.0.0.22:12379"]')
    files = PIECES["etcd"](made)
    assert [name for name in files if name.startswith("etcd/new/")] == [
        "etcd/new/cp1.env",
        "etcd/new/etcd-10-0-0-21-2379.env",
        "etcd/new/etcd-10-0-0-22-12379.env",
    ]
    assert "http://10.0.0.22:12380" in files["etcd/new/cp1.env"]


def test_what_lbha_toml_does_not_say_is_not_made_up() -> None:
    _, absent = pieces(cluster(etcd=None))
    assert set(absent) == {"apiserver", "flannel", "etcd"}
    with pytest.raises(Absent, match='kind = "etcd"'):
        PIECES["etcd"](cluster(etcd=None))
    dns = cluster(etcd='backends = "dns-srv:_etcd._tcp.example.com"')
    with pytest.raises(Absent, match="names the members elsewhere"):
        PIECES["etcd"](dns)
    assert (
        "the members that dns-srv:_etcd._tcp.example.com names" in PIECES["apiserver"](dns)["apiserver.flags"]
    )


@pytest.fixture
def toml(tmp_path: Path, smallest: str) -> str:
    path = tmp_path / "lbha.toml"
    path.write_text(smallest)
    return str(path)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value, done.stdout


def test_one_piece_or_all_to_read(toml: str) -> None:
    code, everything = run("-c", toml)
    assert code == 0
    for file in (
        "kubeadm.yaml",
        "apiserver.flags",
        "kubeconfig/set-server.sh",
        "flannel.flags",
        "etcd/new/cp3.env",
    ):
        assert f"# ---- {file} ----" in everything
    _, one = run("-c", toml, "flannel")
    assert re.findall(r"# ---- (\S+) ----", one) == ["flannel.flags"]
    with pytest.raises(ConfigError, match="choose one of: kubeadm, apiserver"):
        run("-c", toml, "flanel")


def test_files_are_laid_once_and_never_over_others(toml: str, tmp_path: Path) -> None:
    out = tmp_path / "build"
    code, told = run("-c", toml, "--out", str(out))
    assert code == 0 and f"new   {out}/etcd/new/cp1.env" in told
    assert stat.S_IMODE((out / "kubeadm.yaml").stat().st_mode) == 0o644
    _, again = run("-c", toml, "--out", str(out))
    assert "new " not in again and "kept" in again
    (out / "kubeadm.yaml").write_text("an operator's own")
    (out / "rbac.yaml").unlink()
    with pytest.raises(LbhaError, match=re.escape(f"{out}/kubeadm.yaml: says something else")):
        run("-c", toml, "--out", str(out))
    assert not (out / "rbac.yaml").exists(), "all or nothing"
    assert (out / "kubeadm.yaml").read_text() == "an operator's own"
    run("-c", toml, "--out", str(out), "--force")
    assert "ClusterConfiguration" in (out / "kubeadm.yaml").read_text()
    (tmp_path / "file").touch()
    with pytest.raises(LbhaError, match="choose another --out DIR"):
        run("-c", toml, "--out", str(tmp_path / "file"))
