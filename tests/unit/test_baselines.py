"""The recipes keep the values that they publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbha.errors import LabError
from lbha.lab import baselines
from lbha.lab.spec import RECIPE_PORTS, LabNode, LabSpec


def spec(setup: str) -> LabSpec:
    at = Path("/run/lab")
    nodes = tuple(LabNode(f"n{i}", f"10.77.0.1{i}", f"fd77::1{i}", f"ns{i}", at / f"n{i}") for i in (1, 2, 3))
    ports = RECIPE_PORTS.get(setup, (6443, 2379))
    return LabSpec("t", setup, at, nodes, "10.77.0.100", "c", "s", *ports, at, at, at, "stand-in")


def test_kubeadm_waits_thirty_seconds_and_prefers_the_first_node() -> None:
    lab = spec("kubeadm")
    first, second = (baselines.files(lab, node)["keepalived.conf"][0] for node in lab.nodes[:2])
    for line in ("interval 3", "fall 10", "rise 2", "weight -2", "virtual_router_id 51", "auth_pass 42"):
        assert f"{line}\n" in first
    assert "advert_int" not in first
    assert "state MASTER\n" in first and "priority 101\n" in first
    assert "state BACKUP\n" in second and "priority 100\n" in second


def test_kubeadm_asks_its_own_haproxy_for_healthz() -> None:
    script, mode = baselines.files(spec("kubeadm"), spec("kubeadm").nodes[0])["check_apiserver.sh"]
    assert mode == 0o755
    assert 'echo "*** $*" 1>&2' in script
    assert "curl -sfk --max-time 2 https://localhost:8443/healthz -o /dev/null ||" in script


def test_openshift_peers_are_the_others_and_checks_are_slow() -> None:
    lab = spec("openshift")
    files = baselines.files(lab, lab.nodes[1])
    keepalived, haproxy = files["keepalived.conf"][0], files["haproxy.cfg"][0]
    peers = keepalived.split("unicast_peer {")[1].split("}")[0].split()
    assert peers == ["10.77.0.11", "10.77.0.13"]
    assert "priority 40\n" in keepalived and "weight 20\n" in keepalived
    assert "server n3 10.77.0.13:6443 weight 1 verify none check check-ssl inter 5s fall 3 rise 1\n" in haproxy
    assert "bind :::9445 v4v6" in haproxy


def test_lbha_is_no_recipe() -> None:
    with pytest.raises(LabError, match="kubeadm, openshift"):
        baselines.files(spec("lbha-script"), spec("lbha-script").nodes[0])
