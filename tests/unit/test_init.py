"""`lbha init`: what is said and what is found becomes a lbha.toml that lbha itself accepts."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha import config, found
from lbha.draft import KUBEADM, Draft, draft, text
from lbha.errors import ConfigError
from lbha.model import Endpoint, Tls

THREE = {"cp1": ("10.0.0.11",), "cp2": ("10.0.0.12",), "cp3": ("10.0.0.13",)}

ETCD_ENV = """\
ETCD_NAME=cp1
ETCD_INITIAL_CLUSTER="cp1=https://10.0.0.11:2380,cp2=https://10.0.0.12:2380,cp3=https://10.0.0.13:2380"
ETCD_ADVERTISE_CLIENT_URLS=https://127.0.0.1:4001,https://10.0.0.11:2379
ETCD_TRUSTED_CA_FILE=/etc/etcd/ca.crt
ETCD_CERT_FILE=/etc/etcd/server.crt
ETCD_KEY_FILE=/etc/etcd/server.key
ETCD_CLIENT_CERT_AUTH=true
"""

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: admin@prod
clusters:
- name: other
  cluster: { server: "https://192.0.2.1:6443" }
- name: prod
  cluster:
    server: https://10.0.0.100:8443
    certificate-authority: pki/ca.crt
contexts:
- name: admin@prod
  context: { cluster: prod, user: admin }
users:
- name: admin
  user: { client-certificate: /etc/kubernetes/pki/admin.crt, client-key: /etc/kubernetes/pki/admin.key }
"""


def env(contents: str = ETCD_ENV) -> found.FoundEtcd:
    return found.etcd_env(contents, "etcd.env")


def kubeconfig(contents: str = KUBECONFIG) -> found.FoundApiserver:
    return found.kubeconfig(contents, "admin.conf", PurePosixPath("/etc/kubernetes"))


def test_what_is_said_makes_the_smallest_file_of_the_readme(smallest: str) -> None:
    made = text(draft("prod", ["10.0.0.100"], THREE, None, None, {}))
    assert config.parse(made) == config.parse(smallest)
    assert tomllib.loads(made) == tomllib.loads(smallest) | {"failover": {}, "health": {}}


def test_every_hidden_key_is_one_that_lbha_knows() -> None:
    made = text(draft("prod", ["10.0.0.100"], THREE, None, None, {}))
    shown = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and "]," not in line else line
        for line in made.splitlines()
    ]
    cluster = config.parse("\n".join(line for line in shown if not line.startswith("#")) + "\n")
    assert cluster.interface == "eth0"
    assert cluster.failover.vrrp_filter
    assert [service.tls for service in cluster.services] == [KUBEADM["apiserver"], KUBEADM["etcd"]]
    assert cluster.virtual_router_id == config.parse(made).virtual_router_id


def test_an_etcd_environment_file_names_nodes_and_tls_files() -> None:
    cluster = config.parse(text(draft("prod", ["10.0.0.100"], {}, env(), None, KUBEADM)))
    assert {node.name: node.addresses for node in cluster.nodes} == THREE
    apiserver, etcd = cluster.services
    assert (etcd.backends, etcd.port, etcd.target_port) == ("nodes", 2379, 2379)
    assert etcd.tls == Tls("/etc/etcd/ca.crt", "/etc/etcd/server.crt", "/etc/etcd/server.key")
    assert apiserver.tls == KUBEADM["apiserver"]


def test_members_elsewhere_become_etcds_backends() -> None:
    balancers = {"lb1": ("10.0.1.1",), "lb2": ("10.0.1.2",)}
    cluster = config.parse(text(draft("prod", ["10.0.1.100"], balancers, env(), None, {})))
    assert cluster.services[1].backends == tuple(Endpoint(each, 2379) for (each,) in THREE.values())


def test_members_on_some_of_the_nodes_are_not_every_node() -> None:
    five = THREE | {"cp4": ("10.0.0.14",), "cp5": ("10.0.0.15",)}
    cluster = config.parse(text(draft("prod", ["10.0.0.100"], five, env(), None, {})))
    assert cluster.services[1].backends == tuple(Endpoint(each, 2379) for (each,) in THREE.values())


def test_host_names_of_members_need_the_nodes_addresses() -> None:
    named = env(ETCD_ENV.replace("10.0.0.12:2380", "cp2.example.com:2380"))
    with pytest.raises(ConfigError, match=r"host name cp2\.example\.com for cp2.*--node"):
        draft("prod", ["10.0.0.100"], {}, named, None, {})
    cluster = config.parse(text(draft("prod", ["10.0.0.100"], THREE, named, None, {})))
    assert cluster.services[1].backends == "nodes"


def test_an_etcd_without_tls_and_at_another_port() -> None:
    plain = "ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380\nETCD_ADVERTISE_CLIENT_URLS=http://10.0.0.11:4001\n"
    service = config.parse(text(draft("prod", ["10.0.0.100"], {}, env(plain), None, {}))).services[1]
    assert (service.port, service.target_port, service.tls) == (2379, 4001, None)


def test_an_etcd_that_trusts_an_authority_asks_for_a_certificate_whatever_else_is_said() -> None:
    assert env(ETCD_ENV.replace("CERT_AUTH=true", "CERT_AUTH=false")).tls == env(ETCD_ENV).tls
    assert env(ETCD_ENV.replace("ETCD_TRUSTED", "X")).tls == replace(env(ETCD_ENV).tls or Tls(), ca=None)


def test_the_url_for_others_says_whether_it_speaks_tls() -> None:
    assert env(ETCD_ENV.replace("https://127.0.0.1", "http://127.0.0.1")).tls == env(ETCD_ENV).tls


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ("", "etcd.env: no ETCD_INITIAL_CLUSTER in it; name the nodes with --node"),
        ("ETCD_INITIAL_CLUSTER=cp1", 'etcd.env: ETCD_INITIAL_CLUSTER: "cp1" is not NAME=URL'),
        ("ETCD_INITIAL_CLUSTER='cp1=x", "etcd.env: line 1: a quote is not closed"),
        (ETCD_ENV.replace("ETCD_CERT_FILE", "X"), "names no files to check it with"),
    ],
)
def test_an_environment_file_that_says_too_little(contents: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        env(contents)
    assert told in str(error.value)


def test_a_kubeconfig_names_vip_port_and_tls_files() -> None:
    cluster = config.parse(text(draft("prod", [], THREE, None, kubeconfig(), KUBEADM)))
    assert cluster.vips == ("10.0.0.100",)
    apiserver, etcd = cluster.services
    assert (apiserver.port, apiserver.target_port) == (8443, 6443)
    files = ("/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/admin.crt", "/etc/kubernetes/pki/admin.key")
    assert apiserver.tls == Tls(*files)
    assert etcd.tls == KUBEADM["etcd"]


def test_a_kubeconfig_of_kubeadm_holds_its_certificates_inline() -> None:
    inline = kubeconfig(
        KUBECONFIG.replace("certificate-authority: pki/ca.crt", "certificate-authority-data: QUJD")
        .replace("client-certificate:", "client-certificate-data:")
        .replace("client-key:", "client-key-data:")
    )
    assert inline.tls is None
    cluster = config.parse(text(draft("prod", [], THREE, None, inline, KUBEADM)))
    assert cluster.services[0].tls == KUBEADM["apiserver"]


def test_what_is_said_goes_before_what_is_found() -> None:
    cluster = config.parse(text(draft("prod", ["10.0.0.101"], THREE, None, kubeconfig(), {})))
    assert cluster.vips == ("10.0.0.101",)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("10.0.0.100", "10.0.0.12", "server 10.0.0.12 is cp2 itself, not a VIP"),
        ("10.0.0.100", "api.example.com", "api.example.com, a host name; write its address with --vip"),
        ("https://10.0.0.100:8443", "10.0.0.100", 'server "10.0.0.100" is not a URL'),
        ("https://10.0.0.100:8443", "https://10.0.0.100:99999", "is not a URL"),
        ("cluster: prod,", "cluster: gone,", "its current context names no cluster that it has"),
        (KUBECONFIG, "- a\n", "not a kubeconfig"),
        (KUBECONFIG, "{", "admin.conf: not YAML"),
        (KUBECONFIG, "[" * 10_000, "admin.conf: not YAML"),
    ],
)
def test_a_kubeconfig_that_names_no_vip(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        draft("prod", [], THREE, None, kubeconfig(KUBECONFIG.replace(old, new)), {})
    assert told in str(error.value)
    assert "\n" not in str(error.value)


NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_text_means_more_than_itself(name: str, vip: str, node: str, address: str) -> None:
    """What lbha.config accepts is what was given, to the letter: no quote or newline begins another key."""
    made = text(Draft(name, (vip,), {node: (address,)}))
    try:
        document = tomllib.loads(made)
    except tomllib.TOMLDecodeError:
        return  # such as U+007F, which TOML wants escaped: refused
    assert document["cluster"] == {"name": name, "vip": vip}
    assert document["nodes"] == {node: address}
    assert set(document) == {"cluster", "nodes", "services", "failover", "health"}


def lbha_init(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as an operator types it."""
    words = [sys.executable, "-m", "lbha", "init", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def test_the_command_writes_and_never_overwrites(tmp_path: Path) -> None:
    out = tmp_path / "etc" / "lbha.toml"
    words = ["--name", "prod", "--vip", "10.0.0.100", "--node", "cp1=10.0.0.11", "--out", out]
    done = lbha_init(*words, "--node", "cp2=10.0.0.12")
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[0] == (
        f"wrote {out}: VIP 10.0.0.100 with apiserver at 6443 and etcd at 2379, nodes cp1, cp2"
    )
    assert out.stat().st_mode & 0o777 == 0o644
    before = out.read_text()
    again = lbha_init(*words)
    assert again.returncode == 1
    assert again.stderr == f"lbha: {out} is there already and was left as it is; --force overwrites it\n"
    assert out.read_text() == before
    assert lbha_init(*words, "--force").returncode == 0
    assert [node.name for node in config.load(out).nodes] == ["cp1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--name", "\udcff", "--vip", "10.0.0.100", "--node", "cp1=10.0.0.11"],
            "a control character in the value",
        ),
        (["--vip", "10.0.0.100"], "no nodes; write --node cp1=10.0.0.11 for each"),
        (["--node", "cp1=10.0.0.11"], "no VIP; write --vip 10.0.0.100"),
        (["--node", "cp1"], "is not NAME=ADDRESS"),
        (["--node", "a=10.0.0.1", "--node", "a=10.0.0.2"], "--node a stands twice"),
        (["--vip", "10.0.0.100", "--node", "cp1=10.0.0.300"], 'nodes.cp1 = "10.0.0.300": not an IP address'),
        (["--vip", "10.0.0.1", "--node", "cp1=10.0.0.1"], "the VIP must belong to no node"),
        (["--from-etcd-env", "/nowhere"], "/nowhere: No such file or directory"),
        (["--from-kubeconfig", "/dev/zero"], "/dev/zero: larger than 1 MiB"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path: Path, words: list[str], told: str) -> None:
    out = tmp_path / "lbha.toml"
    done = lbha_init("--name", "prod", "--out", out, *words)
    assert done.returncode == 2, done
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = lbha_init(
        "--name", "p", "--vip", "10.0.0.100", "--node", "a=10.0.0.1", "--out", tmp_path / "file" / "x.toml"
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"lbha: {tmp_path / 'file'}")
    assert done.stderr.count("\n") == 1
