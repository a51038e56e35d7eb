"""The commands that ask the agent, against a stand-in that answers on a real UNIX socket."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from statuses import NOW, report, status

from lbha.agent.events import Event
from lbha.cli import group
from lbha.cli.agent_options import run_dir
from lbha.errors import ConfigError, LbhaError
from lbha.facts import Drain

TOML = '[cluster]\nname = "prod"\nvip = "10.0.0.100"\n[nodes]\n' + "".join(
    f'cp{n} = "10.0.0.1{n}"\n' for n in (1, 2, 3)
)
TOML += '[services.apiserver]\nkind = "kube-apiserver"\n[services.etcd]\nkind = "etcd"\n'


class StandIn(socketserver.ThreadingUnixStreamServer):
    """Answers what a test put into `answers`, and keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, msgspec.json.decode(body) if body else None))
        code, answer = self.server.answers[self.path.partition("?")[0]]
        data = msgspec.json.encode(answer)
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    (tmp_path / "lbha.toml").write_text(f'{TOML}[paths]\nlbha = "/usr/bin/lbha"\nrun_dir = "{tmp_path}/run"\n')
    monkeypatch.setenv("LBHA_CONFIG", str(tmp_path / "lbha.toml"))
    (tmp_path / "run").mkdir()
    server = StandIn(tmp_path / "run/agent.sock")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    found = status()
    now = replace(found, peers=tuple(replace(peer, heard=4e9) for peer in found.peers))
    server.answers = {
        "/status": (200, now),
        "/events": (200, [Event(NOW, "vip-gained", "cp1 holds 10.0.0.100 now: cp2 is drained", "drain")]),
        "/drain": (200, now),
        "/undrain": (200, now),
        "/backend": (200, {"text": "etcd/cp3: drain"}),
    }
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments, standalone_mode=False)


def test_status_of_a_healthy_cluster(agent: StandIn) -> None:
    done = run("status")
    assert (done.exception, done.return_value) == (None, 0)
    assert "VIP 10.0.0.100 is held by cp1\nhealthy\n" in done.output
    assert agent.asked == [("GET", "/status", None)]


def test_status_exits_1_when_something_is_wrong_and_says_so_in_json_too(agent: StandIn) -> None:
    code, found = agent.answers["/status"]
    agent.answers["/status"] = code, replace(found, refused="cluster.vip: …")
    done = run("status")
    assert done.return_value == 1 and "! lbha.toml is refused" in done.output
    done = run("status", "--json")
    assert done.return_value == 1
    assert msgspec.json.decode(done.output)["refused"] == "cluster.vip: …"


def test_what_was_meant_so_exits_0(agent: StandIn) -> None:
    code, found = agent.answers["/status"]
    drained = replace(found, drain=Drain(NOW, None, "kernel"), report=report(1, holds=True, drained=True))
    agent.answers["/status"] = code, drained
    assert run("status").return_value == 0


@pytest.mark.usefixtures("agent")
def test_explain() -> None:
    done = run("explain", "--if-dies", "cp1", "--if-dies", "cp1/haproxy")
    assert (done.exception, done.return_value) == (None, 0)
    assert "cp1 holds 10.0.0.100" in done.output and "cp2 is drained" in done.output
    assert done.output.count("dies now:") == 2
    told = msgspec.json.decode(run("explain", "--json", "--if-dies", "cp1").output)
    assert told["outcomes"][0]["holder"] == "cp2" and told["moved"]["cause"] == "drain"
    assert [term["name"] for term in told["terms"]] == ["order", "local", "holder", "serving"]
    done = run("explain", "--if-dies", "cp7")
    assert isinstance(done.exception, ConfigError)


@pytest.mark.usefixtures("agent")
def test_explain_needs_no_valid_file_unless_it_has_to_foretell(tmp_path: Path) -> None:
    with (tmp_path / "lbha.toml").open("a") as file:
        file.write("nonsense = \n")
    assert run("explain").return_value == 0
    assert isinstance(run("explain", "--if-dies", "cp1").exception, ConfigError)


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        ((), {}),
        (("--for", "90s", "--reason", "kernel"), {"for": 90.0, "reason": "kernel"}),
        (("--for", "30m", "--force"), {"for": 1800.0, "force": True}),
        (("--for", "1.5h", "--until-boot"), {"for": 5400.0, "until_boot": True}),
        (("--for", "2d"), {"for": 172800.0}),
    ],
)
def test_drain(agent: StandIn, arguments: tuple[str, ...], body: dict[str, Any]) -> None:
    done = run("drain", *arguments)
    assert done.return_value == 0 and done.output.startswith("drained ")
    whole = {"for": None, "reason": "", "force": False, "until_boot": False} | body
    assert agent.asked == [("POST", "/drain", whole)]


def test_drain_waits_until_the_vip_has_left(agent: StandIn) -> None:
    """Status of the stand-in: cp1 holds the VIP, for ever."""
    began = time.monotonic()
    done = run("drain", "--wait", "0.5s")
    assert 0.5 <= time.monotonic() - began < 5
    assert isinstance(done.exception, LbhaError)
    assert str(done.exception).startswith("the VIP has not left within 0.5 s")
    assert [method for method, *_ in agent.asked][:3] == ["POST", "GET", "GET"]


@pytest.mark.parametrize("span", ["30", "m", "0s", "-1s", "1w", "1h30m", "nan", ""])
def test_what_is_no_duration_is_misuse(agent: StandIn, span: str) -> None:
    done = CliRunner().invoke(group, ["drain", "--for", span])
    assert done.exit_code == 2 and "30m" in done.output and agent.asked == []


def test_a_refusal_is_one_line_and_exit_1(agent: StandIn) -> None:
    agent.answers["/drain"] = (409, {"error": "nobody could take over: cp2 is drained"})
    done = run("drain")
    assert isinstance(done.exception, LbhaError) and done.exception.exit_code == 1
    assert str(done.exception) == "nobody could take over: cp2 is drained"
    agent.answers["/drain"] = (400, {"error": "for is a number"})
    done = run("drain")
    assert isinstance(done.exception, LbhaError) and done.exception.exit_code == 2


def test_undrain(agent: StandIn) -> None:
    assert run("undrain").return_value == 0
    assert agent.asked == [("POST", "/undrain", None)]


def test_backend(agent: StandIn) -> None:
    done = run("backend", "etcd/cp3", "drain")
    assert (done.return_value, done.output) == (0, "etcd/cp3: drain\n")
    body = {"service": "etcd", "server": "cp3", "state": "drain", "force": False}
    assert agent.asked == [("POST", "/backend", body)]
    for wrong in (("etcd", "drain"), ("etcd/", "drain"), ("/cp3", "drain"), ("etcd/cp3", "off")):
        assert CliRunner().invoke(group, ["backend", *wrong]).exit_code == 2


def test_events(agent: StandIn) -> None:
    done = run("events", "-n", "7")
    assert "vip-gained     cp1 holds 10.0.0.100 now: cp2 is drained" in done.output
    assert agent.asked == [("GET", "/events?n=7", None)]
    (line,) = run("events", "--json").output.splitlines()
    assert msgspec.json.decode(line, type=Event).cause == "drain"


def test_no_agent_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBHA_CONFIG", str(tmp_path / "lbha.toml"))
    (tmp_path / "lbha.toml").write_text(f'[paths]\nrun_dir = "{tmp_path}"\n')
    for arguments in (
        ("status",),
        ("explain",),
        ("drain",),
        ("undrain",),
        ("events",),
        ("backend", "a/b", "ready"),
    ):
        done = run(*arguments)
        assert isinstance(done.exception, LbhaError) and str(tmp_path) in str(done.exception)
    assert CliRunner().invoke(group, ["status", "--json", "--watch"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[paths]\nrun_dir = "/a"\n', "/a"),
        ('paths = { run_dir = "/a" }\n', "/a"),
        ("paths.run_dir = '/a'\n", "/a"),
        ('[paths]\nrun_dir = "/a"\n[nodes\n', "/a"),
        ("[paths\n  run_dir='/a'\n", "/a"),
        ("", "/run/lbha"),
        ("paths = 3\n", "/run/lbha"),
        ("[paths]\nrun_dir = 3\n", "/run/lbha"),
        (None, "/run/lbha"),
    ],
)
def test_the_socket_is_found_in_a_file_that_is_refused(tmp_path: Path, text: str | None, found: str) -> None:
    file = tmp_path / "lbha.toml"
    if text is not None:
        file.write_text(text)
    assert run_dir(file) == found
