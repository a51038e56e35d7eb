"""The parts of apply that need no engine: texts, files, the lock, the track script's proof, the lines."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha import engine, files, track_script
from lbha.apply import PoolChange, Report
from lbha.cli.apply import lines
from lbha.errors import ApplyError, EngineError
from lbha.haproxy_text import EMPTY_STATE, Bind, binds, needed_directories, servers
from lbha.live import state_for
from lbha.model import Cluster, Endpoint
from lbha.render import render
from lbha.transaction import Step

CFG = """\
global
    stats socket /run/haproxy/admin.sock mode 600 level admin
    chroot /var/lib/haproxy
frontend f
    # bind 10.0.0.9:1
    bind 10.0.0.100:6443 transparent
    bind [fd00::100]:6443 transparent,ipv6@[::1]:80
    bind :8404
    bind /run/f.sock
    bind 10.0.0.1:99 interface eth1
backend b
    server s1 10.0.0.1:6443 check
    server s2 [fd00::2]:6443
    server s3 some.name:6443
"""
STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state (and so on)
3 b 1 s1 10.0.0.1 0 0 1 1 7 8 2 0 6 0 0 0 - 6443 - 0 0 - - 0
3 b 2 s2 fd00::2 2 0 1 1 7 8 2 0 6 0 0 0 - 6444 - 0 0 - - 0
3 b 3 gone 10.0.0.3 2 0 1 1 7 8 2 0 6 0 0 0 - 6443 - 0 0 - - 0
4 other 1 s1 10.0.0.1 2 0 1 1 7 8 2 0 6 0 0 0 - 6443 - 0 0 - - 0
"""


def test_binds_are_those_that_can_be_tried() -> None:
    assert binds(CFG) == (
        Bind(Endpoint("10.0.0.100", 6443), True),
        Bind(Endpoint("fd00::100", 6443), False),
        Bind(Endpoint("0.0.0.0", 8404), False),
    )
    assert binds("global\n  noreuseport\n" + CFG) == ()


def test_directories_that_haproxy_needs() -> None:
    assert [directory for directory, _ in needed_directories(CFG)] == ["/run/haproxy", "/var/lib/haproxy"]


def test_state_keeps_servers_that_stayed_and_drops_moved_and_unknown_ones() -> None:
    kept = state_for(CFG, STATE, {})
    assert kept.endswith("\n")
    assert [line.split()[1:4] for line in kept.splitlines()[2:]] == [["b", "1", "s1"]]
    assert state_for(CFG, "", {}) == EMPTY_STATE


@given(st.text(), st.text())
def test_any_text_is_survived(text: str, state: str) -> None:
    binds(text)
    needed_directories(text)
    servers(text)
    assert state_for(text, state, {}).endswith("\n")


def test_the_rendered_files_are_understood(smallest: str, own_nodes: object) -> None:
    from lbha.config import parse

    cluster: Cluster = parse(smallest)
    rendered = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0")  # type: ignore[operator]
    for name, text in rendered.files.items():
        assert engine.digest_in(text) == rendered.digests[name]
    cfg = rendered.files["haproxy.cfg"]
    assert servers(cfg)["etcd", "cp2"] == Endpoint("10.0.0.12", 2379)
    assert Bind(Endpoint("10.0.0.100", 6443), True) in binds(cfg)
    assert engine.digest_in(cfg.replace("description lbha-", "description x-")) is None


def test_write_replaces_in_one_step_with_its_mode_and_follows_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    target = real / "haproxy.cfg"
    target.write_bytes(b"old")
    link = tmp_path / "haproxy.cfg"
    link.symlink_to(target)
    (real / ".haproxy.cfg.new").write_bytes(b"left by a killed apply")
    files.write(link, b"new", files.Access(0o640, "root"))
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in real.iterdir()] == ["haproxy.cfg"]


def test_an_unknown_group_leaves_the_file_to_root_alone(tmp_path: Path) -> None:
    files.write(tmp_path / "x", b"x", files.Access(0o640, "no-such-group"))
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    code = (
        "import resource, sys; from pathlib import Path; from lbha import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"files.write(Path({str(tmp_path / 'x')!r}), b'n' * 1000, files.PRIVATE)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_the_lock_is_refused_after_patience_and_free_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import time; from pathlib import Path; from lbha import files\n"
        f"with files.lock(Path({str(path)!r})): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == "held\n"
            start = time.monotonic()
            with pytest.raises(ApplyError, match="another lbha apply has held"), files.lock(path, 0.3):
                pass
            assert time.monotonic() - start < 5
        finally:
            holder.kill()
    with files.lock(path, 5.0):
        pass


def _program(path: Path, body: str, mode: int = 0o755) -> str:
    path.write_text(body)
    path.chmod(mode)
    return str(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="keepalived's rule is about files of root")
def test_a_track_script_that_keepalived_could_not_run_is_refused(tmp_path: Path) -> None:
    good = _program(tmp_path / "lbha", '#!/bin/sh\ntest "$*" = "check --help"\n')

    def text(program: str) -> str:
        return f'vrrp_script haproxy {{\n  script "{program} check haproxy --socket /s"\n}}\n'

    track_script.prove(text(good), good)
    track_script.prove(text("/bin/other"), "/bin/missing")  # an operator's own script is theirs
    open_directory = tmp_path / "open"
    open_directory.mkdir()
    loose = _program(open_directory / "lbha", "#!/bin/sh\n")
    open_directory.chmod(0o777)
    foreign = _program(tmp_path / "foreign", "#!/bin/sh\n")
    os.chown(foreign, 1234, 0)
    for program, why in {
        str(tmp_path / "missing"): "no such file",
        _program(tmp_path / "plain", "#!/bin/sh\n", 0o644): "not executable",
        _program(tmp_path / "writable", "#!/bin/sh\n", 0o777): "writable by others",
        loose: "open is writable by others",
        foreign: "belongs to uid 1234",
        _program(tmp_path / "interpreter", "#!/no/such/python\n"): "cannot be run",
        _program(tmp_path / "failing", "#!/bin/sh\necho No module named lbha >&2\nexit 3\n"): "ends with 3: No",
    }.items():
        with pytest.raises(EngineError, match=why) as caught:
            track_script.prove(text(program), program)
        assert "[paths] lbha" in str(caught.value) and "\n" not in str(caught.value)


def test_lines_say_what_was_done() -> None:
    steps = (
        Step("haproxy", "reloaded", "/etc/haproxy/haproxy.cfg", True, "3f2a91c0d4e5", 41.3),
        Step("keepalived", "unchanged", "/etc/keepalived/keepalived.conf", True, "0123456789ab"),
    )
    pools = (
        PoolChange("apiserver", ("10.0.0.1:6443",), ("10.0.0.1:6443",), 42.4, "no answer in 3 s"),
        PoolChange("etcd", ("10.0.0.1:2379", "10.0.0.2:2379"), ("10.0.0.1:2379", "10.0.0.3:2379"), 0.0, None),
    )
    assert lines(Report("applied", steps, pools)) == [
        "apiserver: no answer in 3 s; kept from 42 s ago",
        "etcd: 2 -> 2 backends, + 10.0.0.3:2379, - 10.0.0.2:2379",
        "haproxy: reloaded in 41 ms, runs 3f2a91c0d4e5",
        "keepalived: unchanged",
    ]
    live = (Step("haproxy", "adjusted", "/etc/haproxy/haproxy.cfg", True, "3f2a91c0d4e5", 2.6),)
    assert lines(Report("applied", live)) == ["haproxy: adjusted in 3 ms, no reload, runs 3f2a91c0d4e5"]
    assert lines(Report("planned", live)) == ["haproxy: would adjust its servers, no reload"]
    laid = (Step("haproxy", "laid", "/etc/haproxy/haproxy.cfg", False, "3f2a91c0d4e5"),)
    assert lines(Report("applied", laid)) == [
        "haproxy is not running: it will read /etc/haproxy/haproxy.cfg when it starts"
    ]
