"""What the doctor reads of a node that has systemd-networkd, NetworkManager or kubeadm, from files."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from statuses import report, status

from lbha.config import parse
from lbha.doctor import clients, kubernetes, systemd
from lbha.doctor.context import Context
from lbha.doctor.examine import examine, make_one
from lbha.doctor.links import Address, Interface, Links
from lbha.doctor.model import Check, Outcome, Result
from lbha.doctor.registry import CHECKS
from lbha.errors import LbhaError
from lbha.facts import Peer
from lbha.wiring import gather
from lbha.wiring.gather import running

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: AAAA
    server: https://{server}:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: someone
  name: it
current-context: it
"""

MANIFEST = """\
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.11
{flag}    - --secure-port=6443
"""


@pytest.fixture
def context(smallest: str, tmp_path: Path) -> Context:
    """cp1, whose VIP goes on eth0, the second interface."""
    found = Context(parse(smallest), tmp_path / "lbha.toml", "cp1")
    found.__dict__["interface"] = Interface("eth0", 2, "02:00:00:00:00:01", True, True)
    return found


def check(name: str, context: Context) -> Outcome:
    return make_one(next(each for each in CHECKS if each.name == name), context)


def severities(outcome: Outcome) -> list[str]:
    assert outcome.result in (Result.GOOD, Result.FOUND), outcome
    return [str(each.severity) for each in outcome.findings]


@pytest.mark.parametrize(
    ("ahead", "expected"), [(0.0, []), (-0.8, []), (5.0, ["warning"]), (-5.0, ["warning"])]
)
def test_the_clock_of_a_peer_by_its_report(context: Context, ahead: float, expected: list[str]) -> None:
    now = time.time()
    told = tuple(Peer(f"cp{n}", report(n, at=now + (ahead if n == 2 else 0.0)), now, None) for n in (2, 3))
    context.__dict__["status"] = replace(status(), peers=told)
    assert severities(check("clocks", context)) == expected


def test_networkd(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "NETWORKD_LINKS", tmp_path)
    assert check("networkd", context).result is Result.DOES_NOT_APPLY
    network, dropin = tmp_path / "10-eth0.network", tmp_path / "10-eth0.network.d" / "keep.conf"
    network.write_text("[Match]\nName=eth0\n\n[Network]\nDHCP=yes\n")
    state = f"# This is private data.\nADMIN_STATE=configured\nNETWORK_FILE={network}\n"
    (tmp_path / "2").write_text(state)
    assert severities(check("networkd", context)) == ["warning"]
    dropin.parent.mkdir()
    dropin.write_text("[Network]\nKeepConfiguration=yes\n")
    assert severities(check("networkd", context)) == []
    (tmp_path / "2").write_text("ADMIN_STATE=unmanaged\n")
    assert check("networkd", context).result is Result.DOES_NOT_APPLY


def test_network_manager(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "NETWORKMANAGER_DEVICES", tmp_path)
    assert check("network-manager", context).result is Result.DOES_NOT_APPLY
    (tmp_path / "2").write_text("[device]\nmanaged=true\nconnection-uuid=1\n")
    assert severities(check("network-manager", context)) == ["warning"]
    (tmp_path / "2").write_text("[device]\nmanaged=false\n")
    assert severities(check("network-manager", context)) == []


def test_kubeconfigs(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ROOT", tmp_path)
    monkeypatch.setattr(gather, "running", lambda: iter(()))  # an etcd of this machine is no matter here
    context.__dict__["links"] = Links((), (Address("eth0", "10.0.0.11", 24),))
    assert check("clients", context).result is Result.DOES_NOT_APPLY
    directory = tmp_path / "etc" / "kubernetes"
    directory.mkdir(parents=True)
    (directory / "admin.conf").write_text(KUBECONFIG.format(server="10.0.0.12"))
    assert severities(check("clients", context)) == ["warning"]
    (directory / "admin.conf").write_text(KUBECONFIG.format(server="10.0.0.100"))
    assert severities(check("clients", context)) == []
    (directory / "kubelet.conf").write_text("nonsense: [")
    assert check("clients", context).result is Result.NOT_CHECKED


def test_the_manifest_of_an_apiserver(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "kube-apiserver.yaml"
    monkeypatch.setattr(kubernetes, "MANIFEST", manifest)
    monkeypatch.setattr(kubernetes, "running", lambda: iter(()))
    assert check("shutdown-delay", context).result is Result.DOES_NOT_APPLY
    for flag, expected in (
        ("", ["hint"]),
        ("    - --shutdown-delay-duration=200ms\n", ["warning"]),
        ('    - "--shutdown-delay-duration=20s"\n', []),
    ):
        manifest.write_text(MANIFEST.format(flag=flag))
        assert severities(check("shutdown-delay", context)) == expected, flag


def test_an_apiserver_that_runs(context: Context) -> None:
    """By its command line; a Python of that name stands in for it."""
    argv = ["kube-apiserver", "-c", "input()", "--shutdown-delay-duration=300ms"]
    with subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.PIPE) as process:
        end = time.monotonic() + 5
        while not any(each.source == f"process {process.pid}" for each, _ in running()):
            assert time.monotonic() < end
        assert severities(check("shutdown-delay", context)) == ["warning"]
        process.communicate(b"\n")


def test_a_silent_agent_is_waited_for_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(*_: object, **__: object) -> None:
        asked.append(time.monotonic())
        time.sleep(0.2)
        raise LbhaError("the agent did not answer")

    monkeypatch.setattr("lbha.agent.client.ask", ask)
    several = [Check(name, "", lambda each: each.status and ()) for name in ("one", "two", "three")]
    outcomes = examine(several, context, seconds=0.5)
    assert {each.why for each in outcomes} == {"the agent did not answer"}
    assert len(asked) == 1


def test_what_only_root_may_ask_is_not_checked(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert check("agent", context).result is Result.NOT_CHECKED
    files = {name: tmp_path / name for name in ("ca", "cert", "key")}
    for file in files.values():
        file.touch()
    context.cluster = replace(
        context.cluster, peers=replace(context.cluster.peers, **{k: str(v) for k, v in files.items()})
    )
    outcome = check("peer-channel", context)
    assert outcome.result is Result.NOT_CHECKED and "run it as root" in (outcome.why or "")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert severities(check("peer-channel", context)) == ["error"]
