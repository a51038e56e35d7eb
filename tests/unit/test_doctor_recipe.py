"""Files that lbha did not write: the published recipes before the doctor, and each trap with its cure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha import keepalived_conf
from lbha.config import parse as parse_cluster
from lbha.doctor import haproxy_conf
from lbha.doctor.examine import examine
from lbha.doctor.model import Outcome, Result, Severity
from lbha.doctor.recipe import RECIPE_CHECKS, read
from lbha.doctor.recipe_files import Recipe
from lbha.doctor.recipe_keepalived import judge_asked, urls
from lbha.errors import ConfigError
from lbha.lab import baselines
from lbha.lab.spec import RECIPE_PORTS, LabNode, LabSpec
from lbha.render import render

FATAL, ERROR, WARNING, HINT = Severity

KEEPALIVED = """\
global_defs {
  vrrp_version 3
  script_user root
  enable_script_security
}
vrrp_script haproxy {
  script "/bin/true --quick"
  interval 2
  timeout 1
  fall 2
}
vrrp_instance one {
  state BACKUP
  interface eth0
  virtual_router_id 77
  priority PRIORITY
  advert_int 0.1
  down_timer_adverts 6
  unicast_src_ip OWN
  unicast_peer {
    PEER
  }
  track_script {
    haproxy
  }
  virtual_ipaddress {
    10.0.0.100/32 dev eth0
  }
}
"""
"""One without a trap."""

HAPROXY = """\
global
    hard-stop-after 10m
defaults
    mode tcp
    option redispatch 1
    option srvtcpka
    retries 3
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend api
    bind 10.0.0.100:6443 transparent
    default_backend apiservers
backend apiservers
    option httpchk
    http-check send meth GET uri /readyz
    http-check expect status 200
    default-server check check-ssl verify none inter 500ms fastinter 100ms fall 3
    server cp1 10.0.0.11:6443
    server cp2 10.0.0.12:6443
"""
"""One without a trap."""


def texts(*changes: tuple[str, str], both: bool = True) -> list[str]:
    """Two nodes' files, with the change in the first one, or in both."""
    found = []
    for number, (own, peer, priority) in enumerate((("11", "12", "200"), ("12", "11", "180"))):
        text = KEEPALIVED.replace("OWN", f"10.0.0.{own}").replace("PEER", f"10.0.0.{peer}")
        text = text.replace("PRIORITY", priority)
        if both or not number:
            for old, new in changes:
                assert old in text, old
                text = text.replace(old, new)
        found.append(text)
    return found


def parsed(*found: str) -> tuple[keepalived_conf.KeepalivedConf, ...]:
    return tuple(keepalived_conf.parse(f"cp{number}.conf", text) for number, text in enumerate(found, 1))


def keepaliveds(*changes: tuple[str, str], both: bool = True) -> tuple[keepalived_conf.KeepalivedConf, ...]:
    return parsed(*texts(*changes, both=both))


def judged(
    keepalived: Sequence[keepalived_conf.KeepalivedConf] = (), haproxy: Iterable[str] = ()
) -> dict[str, set[Severity]]:
    """What is found, by check."""
    cfgs = tuple(haproxy_conf.parse("haproxy.cfg", text) for text in haproxy)
    outcomes = examine(RECIPE_CHECKS, Recipe(tuple(keepalived), cfgs))
    return by_check(outcomes)


def by_check(outcomes: Iterable[Outcome]) -> dict[str, set[Severity]]:
    found = {}
    for outcome in outcomes:
        assert all(each.name == outcome.name for each in outcome.findings)
        if outcome.findings:
            found[outcome.name] = {each.severity for each in outcome.findings}
    return found


def test_files_without_a_trap() -> None:
    assert judged(keepaliveds(), [HAPROXY]) == {"state-master": {HINT}}, "who is first takes the VIP back"


@pytest.mark.parametrize(
    ("name", "severity", "old", "new"),
    [
        ("nopreempt", ERROR, "    haproxy\n", "    haproxy weight -30\n  }\n  nopreempt\n  foo {\n"),
        ("nopreempt", HINT, "  interface eth0\n", "  interface eth0\n  nopreempt\n"),
        ("script-detection", WARNING, "  interval 2\n", "  interval 5\n"),
        ("script-detection", ERROR, "  fall 2\n", "  fall 11\n"),
        ("script-timeout", HINT, "  timeout 1\n", ""),
        ("script-user", WARNING, "  script_user root\n", ""),
        ("script-user", WARNING, "  enable_script_security\n", ""),
        ("script-runs", ERROR, "/bin/true", "/bin/no-such-program"),
        ("script-asks", WARNING, "--quick", "https://10.0.0.100:6443/readyz"),
        ("adverts", HINT, "advert_int 0.1", "advert_int 1"),
        ("multicast", HINT, "unicast_peer", "anything_else"),
        ("vip-prefix", WARNING, "100/32", "100/24"),
        ("example-router-id", HINT, "virtual_router_id 77", "virtual_router_id 51"),
    ],
)
def test_each_trap_of_a_keepalived_conf(name: str, severity: Severity, old: str, new: str) -> None:
    assert severity in judged(keepaliveds((old, new))).get(name, set())


@pytest.mark.parametrize(
    ("name", "severity", "changes"),
    [
        ("one-cluster", ERROR, [("virtual_router_id 77", "virtual_router_id 78")]),
        ("one-cluster", ERROR, [("10.0.0.100/32", "10.0.0.101/32")]),
        ("one-cluster", ERROR, [("down_timer_adverts 6", "down_timer_adverts 3")]),
        ("same-priority", WARNING, [("priority 200", "priority 180")]),
        ("peers-listed", ERROR, [("    10.0.0.12\n", "    10.0.0.99\n")]),
        ("script-weight", ERROR, [("    haproxy\n", "    haproxy weight -2\n")]),
    ],
)
def test_each_trap_between_two_nodes(name: str, severity: Severity, changes: list[tuple[str, str]]) -> None:
    assert severity in judged(keepaliveds(*changes, both=False)).get(name, set())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([('"/bin/true --quick"', '"killall -0 haproxy"')], set()),
        ([('"/bin/true --quick"', '"/usr/bin/test -e /no/such/file"')], set()),
        ([('"/bin/true --quick"', '"no-such-program"')], {ERROR}),
        ([('"/bin/true --quick"', '"bin/true"')], {ERROR}),
    ],
)
def test_only_the_program_of_a_script_must_be_there_and_path_is_searched(
    changes: list[tuple[str, str]], found: set[Severity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: "/bin/true" if name == "killall" else None)
    assert judged(keepaliveds(*changes)).get("script-runs", set()) == found


def test_a_password_is_shown_in_version_2_and_ignored_in_version_3() -> None:
    auth = ("  interface eth0\n", "  authentication {\n  auth_type PASS\n  auth_pass 42\n  }\n")
    assert judged(keepaliveds(auth))["auth-pass"] == {HINT}
    assert judged(keepaliveds(auth, ("  vrrp_version 3\n", "")))["auth-pass"] == {WARNING}


def test_defaults_of_global_defs() -> None:
    changes = [("  down_timer_adverts 6\n", ""), ("  vrrp_version 3\n", "  vrrp_down_timer_adverts 6\n")]
    (instance,) = keepaliveds(*changes)[0].instances
    assert (instance.version, instance.adverts) == (2, 6)
    (instance,) = keepaliveds(*changes, ("10.0.0.100/32", "fd00::100/128"))[0].instances
    assert instance.version == 3, "keepalived takes it for IPv6"


@pytest.mark.parametrize(
    "changes",
    [
        [("  vrrp_version 3\n", "")],
        [("  unicast_peer {\n    10.0.0.12\n  }\n", "")],
    ],
)
def test_nodes_that_are_deaf_to_each_other(changes: list[tuple[str, str]]) -> None:
    assert judged(keepaliveds(*changes, both=False))["one-cluster"] == {ERROR}


def second_router(conf: str) -> str:
    """The same file with a further virtual router, before the first."""
    instance = conf[conf.index("vrrp_instance") :].replace("instance one", "instance two")
    return conf.replace(
        "vrrp_instance one", f"{instance.replace('router_id 77', 'router_id 78')}vrrp_instance one"
    )


def test_every_virtual_router_is_compared_whatever_their_order() -> None:
    one, two = parsed(*map(second_router, texts()))
    assert "one-cluster" not in judged([one, replace(two, instances=two.instances[::-1])])
    first, second = map(second_router, texts())
    other = parsed(first, second.replace("router_id 78", "router_id 79"))
    (outcome,) = examine([each for each in RECIPE_CHECKS if each.name == "one-cluster"], Recipe(other))
    assert [each.evidence.partition(" differs")[0] for each in outcome.findings] == ["two: virtual_router_id"]


def test_peers_without_an_address_of_their_own() -> None:
    outcomes = examine(
        RECIPE_CHECKS,
        Recipe(keepaliveds(("  unicast_src_ip OWN\n".replace("OWN", "10.0.0.11"), ""), both=False)),
    )
    (listed,) = [each for each in outcomes if each.name == "peers-listed"]
    assert listed.result is Result.NOT_CHECKED and "cp1.conf: without unicast_src_ip" in (listed.why or "")


def test_a_weight_that_is_enough() -> None:
    enough = keepaliveds(("    haproxy\n", "    haproxy weight -30\n"))
    assert "script-weight" not in judged(enough)


def test_two_that_start_as_masters() -> None:
    assert judged(keepaliveds(("state BACKUP", "state MASTER")))["state-master"] == {WARNING, HINT}


def test_one_file_alone_does_not_tell() -> None:
    outcomes = examine(RECIPE_CHECKS, Recipe(keepaliveds()[:1]))
    unchecked = {each.name for each in outcomes if each.result is Result.NOT_CHECKED}
    assert unchecked == {"one-cluster", "same-priority", "state-master", "script-weight", "peers-listed"}
    assert all(each.result is Result.DOES_NOT_APPLY for each in outcomes if each.name == "redispatch")


@pytest.mark.parametrize(
    ("name", "severity", "old", "new"),
    [
        ("server-check", ERROR, "default-server check ", "default-server "),
        ("check-times", WARNING, "inter 500ms fastinter 100ms", "inter 5s"),
        ("check-times", WARNING, "inter 500ms fastinter 100ms ", ""),
        ("check-question", WARNING, "/readyz", "/healthz"),
        ("check-question", WARNING, "    option httpchk\n", ""),
        ("check-question", WARNING, "10.0.0.11:6443", "10.0.0.11:2379\n    no option httpchk"),
        ("redispatch", ERROR, "    option redispatch 1\n", ""),
        ("redispatch", ERROR, "backend apiservers\n", "backend apiservers\n    no option redispatch\n"),
        ("idle-watches", WARNING, "    option srvtcpka\n", ""),
        ("short-timeouts", WARNING, "timeout tunnel 1h", "timeout tunnel 20s"),
        ("short-timeouts", WARNING, "timeout server 1h\n    timeout tunnel 1h", "timeout server 35s"),
        ("old-processes", WARNING, "    hard-stop-after 10m\n", ""),
        ("bind-clash", WARNING, "bind 10.0.0.100:6443", "bind *:6443"),
        ("bind-clash", WARNING, "bind 10.0.0.100:6443", "bind ipv6@:::6443"),
        ("low-maxconn", WARNING, "inter 500ms", "maxconn 250 inter 500ms"),
        ("low-maxconn", WARNING, "    mode tcp\n", "    mode tcp\n    maxconn 100\n"),
        ("host-names", WARNING, "10.0.0.12:6443", "cp2.example:6443"),
    ],
)
def test_each_trap_of_a_haproxy_cfg(name: str, severity: Severity, old: str, new: str) -> None:
    assert old in HAPROXY
    assert judged(haproxy=[HAPROXY.replace(old, new)]).get(name) == {severity}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "check-question",
            "check-ssl verify none ",
            "verify none\n    http-check connect port 6443 ssl\n    default-server ",
        ),
        ("idle-watches", "option srvtcpka", "option tcpka"),
        ("short-timeouts", "timeout tunnel 1h", "timeout tunnel 0"),
        (
            "short-timeouts",
            "client 1h\n    timeout server 1h\n    timeout tunnel 1h",
            "client 0\n    timeout server 0",
        ),
        ("host-names", "10.0.0.12:6443", "cp2.example:6443 init-addr last,none"),
        ("host-names", "10.0.0.12:6443", '"${CP2}:6443"'),
        ("host-names", "10.0.0.12:6443", "ipv4@10.0.0.12:6443"),
    ],
)
def test_another_way_to_write_what_is_no_trap(name: str, old: str, new: str) -> None:
    assert old in HAPROXY
    assert name not in judged(haproxy=[HAPROXY.replace(old, new)])


def test_the_frontend_says_how_long_clients_may_be_silent() -> None:
    without = HAPROXY.replace("    timeout tunnel 1h\n", "")
    short = without.replace("timeout client 1h", "timeout client 20s")
    own = "    default_backend apiservers\n    timeout client "
    assert "short-timeouts" in judged(haproxy=[short])
    assert "short-timeouts" not in judged(
        haproxy=[short.replace("    default_backend apiservers\n", f"{own}1h\n")]
    )
    assert "short-timeouts" in judged(
        haproxy=[without.replace("    default_backend apiservers\n", f"{own}20s\n")]
    )


def test_servers_of_a_template_and_none_at_all() -> None:
    (start, _) = HAPROXY.split("    server cp1")
    assert judged(haproxy=[f"{start}    server-template cp 1-3 cp.example:6443 no-check\n"])["host-names"] == {
        WARNING
    }
    (outcome,) = examine(
        [each for each in RECIPE_CHECKS if each.name == "host-names"],
        Recipe((), (haproxy_conf.parse("x", start),)),
    )
    assert outcome.result is Result.DOES_NOT_APPLY and outcome.why == "no server"


def recipe(name: str, tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """A published recipe's files, as the lab lays them."""
    nodes = tuple(
        LabNode(f"cp{n}", f"10.77.0.{10 + n}", f"fd77::{10 + n}", "", tmp_path / f"cp{n}") for n in (1, 2, 3)
    )
    ports = RECIPE_PORTS[name]
    spec = LabSpec(
        "x", name, tmp_path, nodes, "10.77.0.100", "", "", *ports, tmp_path, tmp_path, tmp_path, "stand-in"
    )
    for node in nodes:
        node.directory.mkdir()
        for file, (text, mode) in baselines.files(spec, node).items():
            (node.directory / file).write_text(text)
            (node.directory / file).chmod(mode)
    return [node.directory / "keepalived.conf" for node in nodes], [nodes[0].directory / "haproxy.cfg"]


def test_the_recipe_of_kubeadm(tmp_path: Path) -> None:
    outcomes = examine(RECIPE_CHECKS, read(*recipe("kubeadm", tmp_path)))
    found = by_check(outcomes)
    found.pop("script-runs", None)  # whether this test's directory belongs to root
    assert found == {
        "auth-pass": {WARNING},
        "script-detection": {ERROR},
        "script-timeout": {HINT},
        "adverts": {HINT},
        "multicast": {HINT},
        "example-router-id": {HINT},
        "same-priority": {WARNING},
        "state-master": {HINT},
        "check-times": {WARNING},
        "check-question": {WARNING},
        "idle-watches": {WARNING},
        "short-timeouts": {WARNING},
        "old-processes": {WARNING},
    }
    detection = next(each for each in outcomes if each.name == "script-detection").findings
    assert len(detection) == 1, "the same of all nodes is told once"
    assert "clients of a dead haproxy wait up to 34 s" in detection[0].evidence, "32.4 s were measured"


def test_the_values_of_openshift(tmp_path: Path) -> None:
    found = by_check(examine(RECIPE_CHECKS, read(*recipe("openshift", tmp_path))))
    assert found["redispatch"] == {ERROR}
    assert found["script-asks"] == {WARNING}, "its second script asks the apiserver"
    assert "multicast" not in found and "short-timeouts" not in found


def test_what_lbha_renders_has_no_trap(smallest: str, own_nodes) -> None:  # type: ignore[no-untyped-def]
    cluster = parse_cluster(smallest.replace("[nodes]", "[paths]\nlbha = '/bin/true'\n[nodes]"))
    rendered = [render(cluster, node, own_nodes(cluster), "eth0").files for node in cluster.nodes]
    keepalived = [keepalived_conf.parse(f"cp{n}", files["keepalived.conf"]) for n, files in enumerate(rendered)]
    found = judged(keepalived, [rendered[0]["haproxy.cfg"]])
    found.pop("script-runs", None)  # lbha-track is not installed beside /bin/true
    assert found == {}


# parsers


def test_a_tree_of_braces() -> None:
    text = "a b {\n c 'd e' ! gone\n}\nf\n{\n g {\n }\n}\n# gone {\n"
    (first, second) = keepalived_conf._tree(text)
    assert first == keepalived_conf.Statement(("a", "b"), (keepalived_conf.Statement(("c", "d e")),))
    assert second.words == ("f",) and second.block[0].words == ("g",)


@pytest.mark.parametrize("text", ["a {\n", "}\n"])
def test_braces_that_do_not_match(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(ConfigError, match=r"/x makes no sense as a keepalived\.conf: "):
        read([tmp_path / "x"], [])


@given(st.text(alphabet="ab{}\n \"'!#/1 weight scrptvi_noefy.", max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    try:
        conf = (keepalived_conf.parse("x", f"vrrp_script a {{\n{text}\n}}\nvrrp_instance b {{\n{text}\n}}"),)
    except ValueError:
        conf = ()
    cfg = haproxy_conf.parse("x", f"backend b\n {text}\nserver a {text}")
    for outcome in examine(RECIPE_CHECKS, Recipe(conf, (cfg,))):
        assert outcome.why is None or "Error:" not in outcome.why, outcome


@pytest.mark.parametrize(
    ("text", "value"), [("35s", 35.0), ("500", 0.5), ("2m", 120.0), ("1d", 86400.0), ("x", None)]
)
def test_times(text: str, value: float | None) -> None:
    assert haproxy_conf.seconds(text) == value


def test_whom_a_script_asks() -> None:
    asked = urls("curl https://[fd00::1]:8443/x http://localhost/y; wget 'https://10.0.0.100/'")
    assert asked == {("fd00::1", 8443), ("localhost", 80), ("10.0.0.100", 443)}
    assert len(list(judge_asked("x", asked, ("10.0.0.100/32",), {8443}))) == 2
    assert list(judge_asked("x", asked, ("10.0.0.101",), {6443})) == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read([], [tmp_path / "no"])
