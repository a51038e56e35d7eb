"""keepalived's driver against the real keepalived, in a namespace and with a /tmp of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apply_host import VIP, Host, wait_for

from lbha.errors import EngineError
from lbha.keepalived import Keepalived, State
from lbha.model import Paths

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    try:
        host.state_dir.mkdir()
        Path(host.paths.keepalived_conf).write_text(_text(host, "aaaaaaaaaaaa"))
        host.start_keepalived()
        yield host
    finally:
        host.close()


def _text(host: Host, digest: str, priority: str = "priority 100") -> str:
    return (
        f"global_defs {{\n  router_id lbha-{digest}\n  vrrp_version 3\n"
        f"  reload_check_config {host.state_dir}/keepalived-check.log\n}}\n"
        f"vrrp_instance lbha {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  {priority}\n"
        f"  advert_int 0.1\n  virtual_ipaddress {{\n    {VIP}/32 dev eth0\n  }}\n}}\n"
    )


def _reload(host: Host, text: str) -> None:
    Path(host.paths.keepalived_conf).write_text(text)
    host.keepalived.reload(text)


def test_version_and_validation_speak_keepaliveds_own_words(host: Host, tmp_path: Path) -> None:
    assert host.keepalived.version().startswith("2.")
    path = tmp_path / "keepalived.conf"
    path.write_text("global_defs {\n  router_id x\n}\n")
    host.keepalived.validate(path)
    path.write_text("global_defs {\n  rooter_id x\n}\n")
    with pytest.raises(EngineError, match=r"refuses .*Line 2\) Unknown keyword 'rooter_id'") as caught:
        host.keepalived.validate(path)
    assert "\n" not in str(caught.value)


def test_state_is_typed_and_of_now(host: Host) -> None:
    def holds() -> bool:
        return (host.keepalived.state() or ())[0].state is State.MASTER

    wait_for(holds, "the only node to hold the VIP")
    (instance,) = host.keepalived.state() or ()
    assert (instance.iname, instance.base_priority, instance.effective_priority) == ("lbha", 100, 100)
    assert instance.vipset and instance.vips[0].split()[0] == VIP
    for _ in range(50):  # never half a file, never an old one
        assert host.keepalived.state() is not None
    # A stale dump is not taken for an answer.
    pid = host.keepalived.pid()
    Path(f"/proc/{pid}/root/tmp/keepalived.data").write_text(" Router ID = lbha-0123456789ab\n")
    running = host.keepalived.running()
    assert running is not None and running.digest != "0123456789ab"


def test_a_reload_is_proved_by_what_keepalived_shows(host: Host) -> None:
    pid = host.keepalived.pid()
    for digest in ("bbbbbbbbbbbb", "cccccccccccc"):
        _reload(host, _text(host, digest))
        running = host.keepalived.running()
        assert running is not None and (running.pid, running.digest) == (pid, digest)
    own = _text(host, "x").replace("router_id lbha-x", "router_id mine")
    _reload(host, own)
    running = host.keepalived.running()
    assert running is not None and running.digest is None
    _reload(host, _text(host, "aaaaaaaaaaaa"))


def test_a_file_that_keepalived_refuses_changes_nothing(host: Host) -> None:
    _reload(host, _text(host, "aaaaaaaaaaaa"))
    with pytest.raises(EngineError, match=r"refuses to reload: .*Line 10\) Unknown keyword 'priorety'"):
        _reload(host, _text(host, "bbbbbbbbbbbb", "priorety 1"))
    running = host.keepalived.running()
    assert running is not None and running.digest == "aaaaaaaaaaaa"
    _reload(host, _text(host, "aaaaaaaaaaaa"))


def test_a_pid_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        pid_file = tmp_path / "pid"
        driver = Keepalived(Paths(keepalived_pid=str(pid_file)))
        assert driver.running() is None and driver.state() is None
        for content in (str(stranger.pid), "", "words", "999999999"):
            pid_file.write_text(content)
            assert driver.pid() is None and driver.running() is None
        with pytest.raises(EngineError, match="names no keepalived"):
            driver.reload("x")
        time.sleep(0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_frozen_keepalived_is_told_in_time(host: Host) -> None:
    pid = host.keepalived.pid()
    assert pid is not None
    frozen = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    for each in frozen:
        os.kill(each, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(EngineError, match="may be frozen"):
            host.keepalived.state()
        assert time.monotonic() - start < 8
    finally:
        for each in frozen:
            os.kill(each, signal.SIGCONT)
