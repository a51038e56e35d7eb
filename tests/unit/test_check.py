"""`lbha check`: its command line, and its judgements of whatever a peer may answer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbha.check import parse
from lbha.check.haproxy import serving
from lbha.check.service import given as target_of
from lbha.check.service import judge
from lbha.check.watch import Bad, Misuse, line

INFO = "Name: HAProxy\nVersion: 2.6.12-1+deb12u2\nPid: 7\nStopping: 0\n\n"
TABLE = "# pxname,svname,scur,status,weight,\n"
"""The head of a real answer (2.6.12), shortened to the columns that matter."""


def answer(*rows: str, info: str = INFO) -> bytes:
    return (info + TABLE + "".join(f"{row}\n" for row in rows) + "\n").encode()


def check(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lbha", "check", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20,
        check=False,
        env={"PATH": "/usr/bin:/bin", **more},
    )


def test_open_frontends_serve() -> None:
    assert serving(answer("a,FRONTEND,0,OPEN,,")) == "haproxy 2.6.12 answers, 1 frontend open"
    assert serving(answer("a,FRONTEND,0,OPEN,,", "b,FRONTEND,0,OPEN,,")).endswith("2 frontends open")


@pytest.mark.parametrize("state", ["STOP", "PAUSED", "", "open"])
def test_one_closed_frontend_is_bad_and_named(state: str) -> None:
    with pytest.raises(Bad, match=f"etcd {state}"):
        serving(answer("a,FRONTEND,0,OPEN,,", f"etcd,FRONTEND,0,{state},,"))


def test_the_frontend_for_metrics_carries_no_client() -> None:
    serving(answer("a,FRONTEND,0,OPEN,,", "lbha.metrics,FRONTEND,0,STOP,,"))
    with pytest.raises(Bad, match="no frontend"):
        serving(answer("lbha.metrics,FRONTEND,0,OPEN,,"))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.0 400 Bad request\r\n\r\n", "no haproxy"),
        (answer("a,FRONTEND,0,OPEN,,")[:-1], "broke off"),
        (INFO.encode(), "not with its frontends"),
        (answer(info=INFO), "no frontend"),
        (answer("a,FRONTEND,0,OPEN,,", info=INFO.replace("Stopping: 0", "Stopping: 1")), "is stopping"),
        (answer("a,FRONTEND,0,OPEN,,", info=INFO.replace("Stopping: 0\n", "")), "is stopping"),
        (INFO.encode() + b"Permission denied\n\n", "not with its frontends"),
    ],
)
def test_anything_else_from_the_socket_is_bad(raw: bytes, reason: str) -> None:
    with pytest.raises(Bad, match=reason):
        serving(raw)


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=200).map(lambda tail: INFO.encode() + tail)))
def test_no_answer_of_haproxy_raises_anything_but_bad(raw: bytes) -> None:
    try:
        serving(raw)
    except Bad as error:
        assert str(error)


@given(st.lists(st.sampled_from(["OPEN", "STOP", "PAUSED"]), min_size=1, max_size=20))
def test_all_open_or_bad(states: list[str]) -> None:
    raw = answer(*(f"s{n},FRONTEND,0,{state},," for n, state in enumerate(states)))
    if set(states) == {"OPEN"}:
        assert f" {len(states)} frontend" in serving(raw)
    else:
        with pytest.raises(Bad):
            serving(raw)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("kube-apiserver", b"HTTP/1.1 200 OK\r\n"),
        ("kube-apiserver", b"HTTP/1.0 200\r\n\r\nok"),
        ("etcd", b'HTTP/1.1 200 OK\r\n\r\n{"health":"true"}'),
        ("etcd", b'HTTP/1.1 200 OK\r\nA: b\r\n\r\n{"health":"true","reason":""}\n'),
        ("etcd", b'HTTP/1.1 200 OK\r\n\r\n{"health": true}'),
    ],
)
def test_healthy_as_soon_as_it_is_known(kind: str, raw: bytes) -> None:
    assert judge(kind, raw, ended=False)
    assert judge(kind, raw, ended=True)


@pytest.mark.parametrize(
    ("kind", "raw", "reason"),
    [
        ("kube-apiserver", b"HTTP/1.1 500 Oops\r\n\r\n[-]etcd failed", "answers 500: .-.etcd failed"),
        ("kube-apiserver", b"HTTP/1.1 401 Unauthorized\r\n", "client certificate"),
        ("kube-apiserver", b"HTTP/1.1 2000 OK\r\n", "answers 2000"),
        ("kube-apiserver", b"HTTP/1.1\r\n", "answers nonsense"),
        ("kube-apiserver", b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
        ("etcd", b'HTTP/1.1 503 Service Unavailable\r\n\r\n{"health":"false"}', "answers 503: .*false"),
        ("etcd", b'HTTP/1.1 200 OK\r\n\r\n{"health":"false"}', "not healthy: .*false"),
        ("etcd", b'HTTP/1.1 200 OK\r\nX: "health":"true"\r\n\r\n{"health":"false"}', "not healthy"),
        ("etcd", b'HTTP/1.1 200 OK\r\n\r\n{"error":"\\"health\\":\\"true\\""}', "not healthy"),
        ("etcd", b"", "without an answer"),
    ],
)
def test_sick_as_soon_as_it_is_known(kind: str, raw: bytes, reason: str) -> None:
    with pytest.raises(Bad, match=reason):
        judge(kind, raw, ended=True)


@given(
    st.sampled_from(["etcd", "kube-apiserver"]),
    st.one_of(
        st.binary(max_size=200),
        st.tuples(
            st.sampled_from([b"HTTP/1.1 200 OK\r\n\r\n", b'HTTP/1.0 200\r\n\r\n{"health":']), st.binary()
        ).map(b"".join),
    ),
)
def test_a_judgement_always_falls_at_the_end_and_never_turns(kind: str, raw: bytes) -> None:
    def judged(cut: int, *, ended: bool) -> str | None:
        try:
            return judge(kind, raw[:cut], ended=ended)
        except Bad:
            return "bad"

    final = judged(len(raw), ended=True)
    assert final
    early = {verdict for cut in range(1, len(raw) + 1) if (verdict := judged(cut, ended=False))}
    assert early <= {final}


def test_options_in_any_order_and_both_forms() -> None:
    expected = ("etcd", {"--kind": "etcd", "--address": "10.0.0.1:2379"}, True)
    assert parse(["etcd", "--kind", "etcd", "--address", "10.0.0.1:2379", "--explain"]) == expected
    assert parse(["--explain", "--kind=etcd", "--address=10.0.0.1:2379", "etcd"]) == expected
    assert parse(["haproxy", "-c", "f"]) == parse(["haproxy", "--config=f"])


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "say what to check"),
        ([""], "say what to check"),
        (["haproxy", "--bogus"], "unknown option --bogus"),
        (["haproxy", "-x"], "unknown option -x"),
        (["haproxy", "etcd"], "unexpected argument etcd"),
        (["haproxy", "--socket"], "--socket needs a value"),
        (["haproxy", "--socket="], "--socket needs a value"),
        (["haproxy", "--socket", "--explain"], "--socket needs a value"),
        (["haproxy", "--vip", "10.0.0.1"], "--vip does not go with haproxy"),
        (["holder", "--socket", "/x"], "--socket does not go with holder"),
        (["etcd", "--vip", "10.0.0.1"], "--vip does not go with etcd"),
    ],
)
def test_misuse_is_named(argv: list[str], reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        parse(argv)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"--kind": "etcd"}, "come together"),
        ({"--kind": "redis", "--address": "10.0.0.1:1"}, "unknown kind redis; use one of: etcd, kube-api"),
        ({"--kind": "tcp", "--address": "10.0.0.1:1", "--ca": "/x"}, "takes no --ca"),
        ({"--kind": "etcd", "--address": "10.0.0.1:1", "--cert": "/x"}, "--cert and --key come together"),
        ({"--kind": "etcd", "--address": "10.0.0.1:1", "--config": "/x"}, "--config is not read"),
        ({"--kind": "tcp", "--address": "10.0.0.1"}, "not IP:PORT"),
        ({"--kind": "tcp", "--address": "10.0.0.1:0"}, "not IP:PORT"),
        ({"--kind": "tcp", "--address": "10.0.0.1:65536"}, "not IP:PORT"),
        ({"--kind": "tcp", "--address": "fd00::1:80"}, "as .IP.:PORT"),
        ({"--kind": "tcp", "--address": "localhost:80"}, "not an IP address"),
        ({"--kind": "tcp", "--address": "[10.0.0.1:80"}, "not an IP address"),
    ],
)
def test_a_backend_given_wrongly_is_misuse(more: dict[str, str], reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        target_of(more)


def test_a_backend_given_rightly() -> None:
    found = target_of({"--kind": "etcd", "--address": "[fd00::1]:2379", "--ca": "/ca"})
    assert (found.kind, found.address, found.port, found.ca) == ("etcd", "fd00::1", 2379, "/ca")
    assert found.tls
    assert str(found) == "[fd00::1]:2379"
    assert not target_of({"--kind": "etcd", "--address": "10.0.0.1:2379"}).tls
    assert target_of({"--kind": "kube-apiserver", "--address": "10.0.0.1:6443"}).tls


@given(st.text())
def test_a_line_is_one_line(text: str) -> None:
    assert line(text).isprintable()
    assert len(line(text)) <= 500


KNOWN = """
haproxy holder etcd kube-apiserver tcp apiserver cp1 --socket --socket= --vip --kind --address --ca --cert --key
-c --config --node --explain -h --help -- - = 127.0.0.1 ::1 127.0.0.1:9 [::1]:9 /nonexistent /dev/null /
"""
WORDS = st.one_of(
    st.sampled_from(KNOWN.split()),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
"""What a command line may be made of. (No NUL: execve(2) cannot pass one.)"""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argv=st.lists(WORDS, max_size=7))
def test_any_command_line_ends_in_time_with_one_line_and_no_traceback(
    tmp_path: Path, smallest: str, argv: list[str]
) -> None:
    (tmp_path / "lbha.toml").write_text(smallest)
    began = time.monotonic()
    done = check(*argv, LBHA_CONFIG=str(tmp_path / "lbha.toml"))
    assert time.monotonic() - began < 5
    assert "Traceback" not in done.stderr
    if {"-h", "--help"} & set(argv):
        assert done.returncode == 0
    elif done.returncode == 2:
        assert done.stdout == ""
        assert done.stderr.startswith("lbha check: ")
        assert "\nusage: lbha check haproxy" in done.stderr
    else:
        first, *story = done.stdout.splitlines()
        assert first.startswith({0: "ok: ", 1: "bad: "}[done.returncode])
        assert bool(story) == ("--explain" in argv)
        assert done.stderr == ""


class TestConfigured:
    """What is not given is looked up in lbha.toml."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        path = tmp_path / "lbha.toml"
        path.write_text(
            f"""
[cluster]
name = "prod"
vip = "192.0.2.100"
[nodes]
cp1 = "127.0.0.1"
cp2 = "192.0.2.12"
[services.apiserver]
kind = "kube-apiserver"
[services.etcd]
kind = "etcd"
backends = ["192.0.2.12"]
[services.web]
kind = "tcp"
port = 9
[paths]
haproxy_socket = "{tmp_path}/admin.sock"
state_dir = "{tmp_path}/state"
"""
        )
        return str(path)

    def test_the_socket(self, file: str, tmp_path: Path) -> None:
        done = check("haproxy", "-c", file)
        assert (done.returncode, str(tmp_path / "admin.sock") in done.stdout) == (1, True), done.stdout

    def test_the_vip(self, file: str) -> None:
        done = check("holder", LBHA_CONFIG=file)
        assert (done.returncode, "192.0.2.100 is not on this host" in done.stdout) == (1, True), done.stdout

    def test_the_own_backend(self, file: str) -> None:
        done = check("web", "-c", file, "--explain")
        assert done.returncode == 1
        assert done.stdout.startswith("bad: web: 127.0.0.1:9: Connection refused\n")
        assert "this is cp1, web is at 127.0.0.1:9" in done.stdout

    def test_no_backend_on_this_node_is_good(self, file: str) -> None:
        done = check("etcd", "-c", file, "--node", "cp1")
        assert (done.returncode, done.stdout) == (0, "ok: no backend of etcd on this node\n")

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["redis"], "no service redis in"),
            (["web", "--node", "cp9"], '"cp9" is not in [nodes]'),
            (["web", "--ca", "/x"], "--ca goes with --kind and --address"),
            (["web", "-c", "/nonexistent.toml"], "/nonexistent.toml: cannot be read"),
        ],
    )
    def test_misuse(self, file: str, arguments: list[str], reason: str) -> None:
        done = check(*arguments, LBHA_CONFIG=file)
        assert done.returncode == 2
        assert reason in done.stderr.splitlines()[0]
        assert done.stdout == ""
