"""`lbha apply` and `lbha rollback` on a host with a real haproxy and a real keepalived, where all goes well."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apply_host import ADDRESS, VIP, Host, wait_for

from lbha.engine import digest_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


METRICS = '[metrics]\naddress = "127.0.0.1:8999"\n'
"""With it haproxy's structure differs, not its servers alone."""


@pytest.fixture
def host() -> Iterator[Host]:
    """A host where nothing was applied yet and nothing runs."""
    host = Host()
    try:
        yield host
    finally:
        host.close()


def test_a_first_apply_lays_files_for_daemons_that_do_not_run(host: Host) -> None:
    host.configure()
    done = host.apply()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "web: 2 backends",
        f"haproxy is not running: it will read {host.paths.haproxy_cfg} when it starts",
        f"keepalived is not running: it will read {host.paths.keepalived_conf} when it starts",
    ]
    assert stat.S_IMODE(Path(host.paths.haproxy_cfg).stat().st_mode) == 0o640
    assert stat.S_IMODE(Path(host.paths.keepalived_conf).stat().st_mode) == 0o600
    assert stat.S_IMODE(host.state_dir.stat().st_mode) == 0o700
    assert sorted(path.name for path in (host.root / "etc").iterdir()) == ["haproxy.cfg", "keepalived.conf"]
    again = host.apply()
    assert again.stdout.splitlines() == [
        "haproxy: unchanged; it is not running",
        "keepalived: unchanged; it is not running",
    ]
    assert len(list((host.state_dir / "history").iterdir())) == 1


def test_changes_rollback_and_hold_on_a_serving_host(host: Host) -> None:
    host.start()
    stop = host.client(50)
    worker, pid = host.worker(), host.keepalived.pid()

    done = host.apply()
    assert done.stdout.splitlines() == ["haproxy: unchanged", "keepalived: unchanged"]
    assert host.worker() == worker

    host.configure((9001, 9002, 9003))
    dry = host.apply("--dry-run")
    assert dry.returncode == 0
    assert f"+    server {ADDRESS}:9003 {ADDRESS}:9003" in dry.stdout.splitlines()
    assert dry.stdout.splitlines()[-2:] == [
        "haproxy: would adjust its servers, no reload",
        "keepalived: unchanged",
    ]
    assert host.worker() == worker and "9003" not in host.file("haproxy.cfg")

    done = host.apply()
    assert done.returncode == 0
    first, second, third = done.stdout.splitlines()
    assert first == f"web: 2 -> 3 backends, + {ADDRESS}:9003"
    assert second.startswith("haproxy: adjusted in ") and third == "keepalived: unchanged"
    running = host.haproxy.running()
    assert running is not None and running.pid == worker and running.digest
    assert second.endswith(f" ms, no reload, runs {running.digest}")
    assert f"lbha-{running.digest}" in host.file("haproxy.cfg") and "9003" in host.file("haproxy.cfg")

    host.configure((9001, 9002, 9003), "[failover]\nadvert_interval = 0.2\n")
    report = json.loads(host.apply("--json").stdout)
    assert report["result"] == "applied"
    assert [(step["engine"], step["action"]) for step in report["steps"]] == [
        ("haproxy", "unchanged"),
        ("keepalived", "reloaded"),
    ]
    assert host.worker() == worker and host.keepalived.pid() == pid
    kept = host.keepalived.running()
    assert kept is not None and kept.digest == report["steps"][1]["digest"]

    assert "advert_int 0.2" in host.file("keepalived.conf")
    done = host.rollback()
    assert done.returncode == 0
    assert "keepalived: reloaded" in done.stdout and "haproxy: unchanged" in done.stdout
    assert "advert_int 0.1" in host.file("keepalived.conf")
    held = host.apply()
    assert (held.returncode, held.stdout) == (
        0,
        "held: rolled back from this lbha.toml: change it, or use --force\n",
    )
    assert "advert_int 0.1" in host.file("keepalived.conf")
    assert "keepalived: reloaded" in host.apply("--force").stdout
    assert "advert_int 0.2" in host.file("keepalived.conf")
    assert host.apply().stdout.splitlines() == ["haproxy: unchanged", "keepalived: unchanged"]

    host.rollback("4")  # the first configuration: two backends
    assert "9003" not in host.file("haproxy.cfg")
    host.configure((9001, 9003))  # an edited lbha.toml ends the hold
    assert f"web: 2 -> 2 backends, + {ADDRESS}:9003, - {ADDRESS}:9002" in host.apply().stdout
    listed = host.rollback("--list").stdout.splitlines()
    assert len(listed) == 7 and listed[0].endswith("(present)") and "rollback to 000001" in listed[1]

    assert VIP in host.ip("addr", "show", "dev", "eth0")
    seen = stop()
    assert seen.done > 50 and seen.failed == []


def test_the_operators_own_files_can_be_put_back(host: Host) -> None:
    own = (
        f"global\n    stats socket {host.paths.haproxy_socket} level admin\n"
        "defaults\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
        f"frontend mine\n    bind {ADDRESS}:7777\n"
    )
    Path(host.paths.haproxy_cfg).write_text(own)
    host.start_haproxy()
    running = host.haproxy.running()
    assert running is not None and running.digest is None
    host.configure()
    assert "haproxy: reloaded" in host.apply().stdout
    assert "found" in host.rollback("--list").stdout.splitlines()[1]
    back = host.rollback()
    assert back.returncode == 0 and "haproxy: reloaded" in back.stdout
    assert host.file("haproxy.cfg") == own
    # keepalived had no file then: the one of now stays.
    assert "vrrp_instance" in host.file("keepalived.conf")
    # An operator's edit by hand is kept as well before it is replaced.
    Path(host.paths.haproxy_cfg).write_text(own.replace("7777", "7778"))
    assert "haproxy: reloaded" in host.apply("--force").stdout
    host.rollback()
    assert host.file("haproxy.cfg") == own.replace("7777", "7778")


def test_what_the_daemon_runs_counts_not_only_what_lies_on_disk(host: Host) -> None:
    host.start()
    running = Path(host.paths.haproxy_cfg).read_text()
    host.configure((9001, 9002, 9003))
    assert host.apply("--dry-run").returncode == 0
    # As after a kill between rename and reload: the new file lies there, the old one runs.
    rendered = host.lbha("render", "-c", str(host.toml), "--out", str(host.root / "etc"))
    assert rendered.returncode == 0, rendered.stderr
    assert host.file("haproxy.cfg") != running
    assert "haproxy: adjusted" in host.apply().stdout
    now = host.haproxy.running()
    assert now is not None and f"lbha-{now.digest}" in host.file("haproxy.cfg")
    assert host.haproxy.runs(now, host.file("haproxy.cfg")) and not host.haproxy.runs(now, running)
    wait_for(lambda: VIP in host.ip("addr", "show", "dev", "eth0"), "the VIP still there")


def test_a_renewed_certificate_reloads_haproxy_although_its_file_is_the_same(host: Host) -> None:
    def certificate(name: str) -> None:
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-keyout", host.root / "client-key.pem",
             "-out", host.root / "client.pem"],
            capture_output=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr

    certificate("one")
    host.configure()
    pair = f'ca = "{host.root}/client.pem", cert = "{host.root}/client.pem", key = "{host.root}/client-key.pem"'
    host.toml.write_text(
        host.toml.read_text().replace(
            "[paths]", f'[services.kube]\nkind = "kube-apiserver"\nport = 7001\ntls = {{ {pair} }}\n[paths]'
        )
    )
    assert host.apply().returncode == 0
    bundle = host.state_dir / "tls/kube.pem"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert b"CERTIFICATE" in bundle.read_bytes() and b"PRIVATE KEY" in bundle.read_bytes()
    host.start_haproxy()
    worker, cfg, old = host.worker(), host.file("haproxy.cfg"), bundle.read_bytes()
    assert "haproxy: unchanged" in host.apply().stdout and host.worker() == worker

    certificate("two")
    assert "haproxy: reloaded" in host.apply().stdout
    assert host.worker() != worker and host.file("haproxy.cfg") == cfg and bundle.read_bytes() != old
    assert "haproxy: unchanged" in host.apply().stdout
    assert len(host.rollback("--list").stdout.splitlines()) == 1

    # Half-way through a renewal certificate and key do not match: refused, the pair that works stays.
    worker, good = host.worker(), bundle.read_bytes()
    key = (host.root / "client-key.pem").read_bytes()
    certificate("three")
    (host.root / "client-key.pem").write_bytes(key)
    refused = host.apply()
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith("lbha: haproxy refuses ")
    assert host.worker() == worker and bundle.read_bytes() == good


def test_applies_at_the_same_time_take_turns(host: Host) -> None:
    host.start()
    host.configure((9001, 9002, 9003))
    start = time.monotonic()
    running = [host.start_lbha("apply", "-c", str(host.toml)) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert sum("haproxy: adjusted" in output for output in outputs) == 1
    assert sum("haproxy: unchanged" in output for output in outputs) == 3
    assert time.monotonic() - start < 40
    assert len(list((host.state_dir / "history").iterdir())) == 2


def test_a_file_changed_by_hand_comes_back_with_the_one_that_lay_beside_it(host: Host) -> None:
    host.start()
    beside = host.file("keepalived.conf")
    edited = host.file("haproxy.cfg").replace("retries 3", "retries 4")
    Path(host.paths.haproxy_cfg).write_text(edited)
    host.configure((9001, 9003), "[failover]\nadvert_interval = 0.2\n")
    assert host.apply().returncode == 0
    assert host.rollback().returncode == 0
    assert (host.file("haproxy.cfg"), host.file("keepalived.conf")) == (edited, beside)


def test_a_rollback_after_an_interrupted_apply_goes_one_back(host: Host) -> None:
    host.start()
    host.configure((9001, 9003))
    assert host.apply().returncode == 0
    before = host.file("haproxy.cfg")
    # A reload: servers alone are adjusted within 2 ms, too soon to be interrupted.
    host.configure((9001, 9002, 9003), METRICS)
    process = host.start_lbha("apply", "-c", str(host.toml))
    wait_for(lambda: host.file("haproxy.cfg") != before, "the new file")
    process.kill()
    process.communicate()
    assert host.rollback("--list").stdout.splitlines()[0].split()[1] == "pending"
    assert host.rollback().returncode == 0
    assert host.file("haproxy.cfg") == before


@pytest.mark.parametrize("command", ["apply --force", "rollback"])
def test_what_was_killed_while_held_is_completed(host: Host, command: str) -> None:
    host.start()
    old = host.file("haproxy.cfg"), host.file("keepalived.conf")
    host.configure((9001, 9003), "[failover]\nadvert_interval = 0.2\n")
    assert host.apply().returncode == 0
    new = host.file("haproxy.cfg"), host.file("keepalived.conf")
    assert host.rollback().returncode == 0
    if command == "rollback":  # there and back again
        assert host.rollback().returncode == 0
        old, new = new, old
    process = host.start_lbha(*command.split(), "-c", str(host.toml))
    wait_for(lambda: host.file("haproxy.cfg") == new[0], "the new file")
    process.kill()
    process.communicate()
    assert host.apply().returncode == 0
    assert (host.file("haproxy.cfg"), host.file("keepalived.conf")) == new
    for driver, text in zip((host.haproxy, host.keepalived), new, strict=True):
        running = driver.running()
        assert running is not None and running.digest == digest_in(text)
    held = host.apply().stdout.startswith("held: ")
    assert held == (command == "rollback")


def test_ten_reloads_under_200_connections_a_second(host: Host) -> None:
    host.start()
    stop = host.client(200)
    for number in range(10):
        host.configure(extra="" if number % 2 else METRICS)
        assert "haproxy: reloaded" in host.apply().stdout
    seen = stop()
    print(f"\nten reloads: {len(seen.failed)} of {seen.done} requests failed")
    assert seen.done > 500 and seen.failed == []


def _certificate(host: Host, name: str) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", f"/CN={name}", "-keyout", host.root / f"{name}-key.pem",
         "-out", host.root / f"{name}.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


def _kube(host: Host, name: str) -> None:
    """lbha.toml with a kube-apiserver whose client certificate is `name`."""
    host.configure()
    pair = f'ca = "{host.root}/one.pem", cert = "{host.root}/{name}.pem", key = "{host.root}/{name}-key.pem"'
    host.toml.write_text(
        host.toml.read_text().replace(
            "[paths]", f'[services.kube]\nkind = "kube-apiserver"\nport = 7001\ntls = {{ {pair} }}\n[paths]'
        )
    )


def test_a_rollback_puts_the_certificates_of_then_back(host: Host) -> None:
    for name in ("one", "two"):
        _certificate(host, name)
    _kube(host, "one")
    assert host.apply().returncode == 0
    host.start_haproxy()
    bundle = host.state_dir / "tls/kube.pem"
    first, worker = bundle.read_bytes(), host.worker()
    _kube(host, "two")
    assert "haproxy: reloaded" in host.apply().stdout and bundle.read_bytes() != first
    (host.root / "two.pem").unlink()  # what is wrong now is no obstacle to going back
    assert "haproxy: reloaded" in host.rollback().stdout
    assert bundle.read_bytes() == first and host.worker() != worker


def test_a_half_renewed_pair_is_refused_while_haproxy_is_stopped(host: Host) -> None:
    for name in ("one", "two"):
        _certificate(host, name)
    _kube(host, "one")
    assert host.apply().returncode == 0
    bundle = host.state_dir / "tls/kube.pem"
    good = bundle.read_bytes()
    (host.root / "one.pem").write_bytes((host.root / "two.pem").read_bytes())
    assert host.apply().returncode == 1
    assert bundle.read_bytes() == good
