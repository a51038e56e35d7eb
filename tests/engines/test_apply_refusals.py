"""`lbha apply` when something is wrong: exit 1, one line, and the old configuration serves on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apply_host import VIP, Host, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host that serves. Each test leaves it as it was."""
    host = Host()
    try:
        host.start()
        yield host
    finally:
        host.close()


@pytest.fixture
def unharmed(host: Host) -> Iterator[Host]:
    """The host; afterwards files, worker and VIP must be what they were, and no request have failed."""
    host.configure()
    assert host.apply().returncode == 0
    before = (host.file("haproxy.cfg"), host.file("keepalived.conf"), host.worker())
    stop = host.client(40)
    yield host
    assert (host.file("haproxy.cfg"), host.file("keepalived.conf"), host.worker()) == before
    assert VIP in host.ip("addr", "show", "dev", "eth0")
    names = sorted(path.name for path in (host.root / "etc").iterdir())
    assert names == ["haproxy.cfg", "keepalived.conf"]
    seen = stop()
    assert seen.done > 0 and seen.failed == []
    host.configure()
    assert "unchanged" in host.apply().stdout


def _refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("lbha: "), done.stderr
    for word in words:
        assert word in done.stderr


def _own_template(host: Host, change: Callable[[str], str], name: str = "haproxy/haproxy.cfg.j2") -> None:
    """An operator's own templates: ours with a change."""
    shipped = Path(__file__).parents[2] / "templates"
    for path in shipped.glob("*/*.j2"):
        target = host.root / "templates" / path.relative_to(shipped)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text()
        target.write_text(change(text) if str(path.relative_to(shipped)) == name else text)
    host.configure((9001, 9002, 9003), f'[templates]\ndirectory = "{host.root}/templates"\n')


def test_a_broken_template(unharmed: Host) -> None:
    _own_template(unharmed, lambda text: text + "{{ nothing_known }}")
    _refused(unharmed.apply(), "haproxy.cfg.j2", "nothing_known")


def test_a_file_that_haproxy_refuses(unharmed: Host) -> None:
    _own_template(unharmed, lambda text: text.replace("global\n", "global\n    maxcon 5\n", 1))
    done = unharmed.apply()
    _refused(done, "haproxy refuses", "unknown keyword 'maxcon'", ":4]")
    as_json = unharmed.apply("--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["result"] == "refused"


def test_a_file_that_keepalived_refuses(unharmed: Host) -> None:
    _own_template(unharmed, lambda text: text + "nonsense here\n", "keepalived/keepalived.conf.j2")
    _refused(unharmed.apply(), "keepalived refuses", "nonsense", "Line")


def test_a_port_that_another_process_holds(unharmed: Host) -> None:
    """haproxy would find out by itself, but its old worker refuses connections for seconds meanwhile."""
    taker = unharmed.start_servers(7500, address="127.0.0.1")
    try:
        unharmed.configure(extra='[metrics]\naddress = "127.0.0.1:7500"\n')
        _refused(unharmed.apply(), "cannot listen on 127.0.0.1:7500", "in use", "ss -ltnp")
    finally:
        taker.kill()


def test_a_configuration_that_does_not_start_is_rolled_back(host: Host) -> None:
    """`haproxy -c` does not try to listen; starting does."""
    host.configure()
    host.apply()
    before, worker = host.file("haproxy.cfg"), host.worker()
    entries = host.rollback("--list").stdout
    stop = host.client(40)
    _own_template(
        host, lambda text: text.replace("    default_backend", "    bind unix@/none/x\n    default_backend")
    )
    _refused(host.apply(), "haproxy did not start", "the files before are back and haproxy runs them")
    assert host.file("haproxy.cfg") == before and host.worker() != worker
    running = host.haproxy.running()
    assert running is not None and f"lbha-{running.digest}" in before
    assert host.rollback("--list").stdout == entries
    # Not tried again by the timer: each try would reload, and old workers with their watches would be ended.
    worker = host.worker()
    _refused(host.apply(), "was put back before (haproxy did not start", "--force")
    assert host.worker() == worker
    assert json.loads(host.apply("--json", "--force").stdout)["result"] == "rolled back"
    seen = stop()
    assert seen.done > 0 and seen.failed == []
    host.configure()
    assert host.apply().stdout.splitlines() == ["haproxy: unchanged", "keepalived: unchanged"]


def test_what_a_killed_apply_laid_is_put_back_when_it_does_not_start() -> None:
    """Killed between the rename and the way back: the next apply finds the bad file in its place already."""
    host = Host()
    try:
        host.start()
        good = host.file("haproxy.cfg")
        _own_template(
            host, lambda text: text.replace("    default_backend", "    bind unix@/none/x\n    default_backend")
        )
        process = host.start_lbha("apply", "-c", str(host.toml))
        wait_for(lambda: host.file("haproxy.cfg") != good, "the bad file")
        process.kill()
        process.communicate()
        assert "/none/x" in host.file("haproxy.cfg")
        _refused(host.apply(), "haproxy did not start", "the files before are back and haproxy runs them")
        assert host.file("haproxy.cfg") == good
        assert not (host.state_dir / "history/pending").exists()
    finally:
        host.close()


def test_a_keepalived_whose_pid_file_is_another(unharmed: Host) -> None:
    text = unharmed.toml.read_text()
    unharmed.toml.write_text(text.replace("keepalived.pid", "other.pid"))
    _refused(unharmed.apply(), "keepalived runs", "other.pid does not name it", "[paths] keepalived_pid")


def test_a_rollback_that_cannot_hold_is_none(host: Host) -> None:
    """A full disk at the last write would leave it to the timer to undo the rollback."""
    host.configure()
    host.apply("--force")
    host.configure((9001, 9003))
    assert host.apply().returncode == 0
    before = host.file("haproxy.cfg")
    (host.state_dir / "held").mkdir()
    try:
        _refused(host.rollback(), "nothing was changed")
    finally:
        (host.state_dir / "held").rmdir()
    assert host.file("haproxy.cfg") == before
    host.configure()
    assert host.apply().returncode == 0


def test_a_missing_engine(unharmed: Host) -> None:
    unharmed.configure((9001, 9003))
    empty = unharmed.root / "no-engines"
    empty.mkdir(exist_ok=True)
    hide = "; ".join(f"mount --bind {empty} {path}" for path in ("/usr/local/sbin", "/usr/sbin"))
    done = unharmed.spawn(
        "unshare", "-m", "sh", "-c",
        f"{hide}; PATH=/usr/bin:/bin exec {sys.executable} -m lbha apply -c {unharmed.toml}",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = done.communicate(timeout=60)
    _refused(
        subprocess.CompletedProcess("", done.returncode, out, err), "haproxy is not installed; apt-get install"
    )


@pytest.mark.parametrize("full", ["etc", "state"])
def test_a_full_disk(unharmed: Host, full: str) -> None:
    unharmed.configure((9001, 9003))
    target, copy = unharmed.root / full, unharmed.root / "copy"
    process = unharmed.spawn(
        "unshare", "-m", "sh", "-c",
        f"rm -rf {copy}; cp -a {target} {copy}; mount -t tmpfs -o size=64k none {target}; "
        f"cp -a {copy}/. {target}; dd if=/dev/zero of={target}/full bs=4k 2>/dev/null; "
        f"{sys.executable} -m lbha apply -c {unharmed.toml}; code=$?; "
        f"rm {target}/full; diff -r -x staging {target} {copy} >&2; exit $code",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    _refused(subprocess.CompletedProcess("", process.returncode, out, err), "No space left on device")


def test_a_directory_that_is_missing_or_read_only(unharmed: Host) -> None:
    text = unharmed.toml.read_text()
    unharmed.toml.write_text(text.replace("etc/keepalived.conf", "nowhere/keepalived.conf"))
    _refused(unharmed.apply(), "nowhere/keepalived.conf", "No such file or directory", "nothing was changed")
    unharmed.configure((9001, 9003))
    process = unharmed.spawn(
        "unshare", "-m", "sh", "-c",
        f"mount --bind {unharmed.root}/etc {unharmed.root}/etc && mount -o remount,ro,bind {unharmed.root}/etc "
        f"&& exec {sys.executable} -m lbha apply -c {unharmed.toml}",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    _refused(subprocess.CompletedProcess("", process.returncode, out, err), "Read-only file system")


def test_an_address_that_is_not_on_this_host(unharmed: Host) -> None:
    text = unharmed.toml.read_text()
    unharmed.toml.write_text(text.replace("[services.web]", 'cp2 = "10.99.7.2"\n[services.web]'))
    _refused(unharmed.apply("--node", "cp2"), "cp2", "10.99.7.2", "on no interface of this host")


def test_a_program_that_keepalived_could_not_run(unharmed: Host) -> None:
    (unharmed.root / "lbha").write_text("#!/no/such/interpreter\n")
    (unharmed.root / "lbha").chmod(0o755)
    text = unharmed.toml.read_text()
    unharmed.toml.write_text(text.replace("[paths]", f'[paths]\nlbha = "{unharmed.root}/lbha"'))
    _refused(unharmed.apply(), "could not run the track script", "[paths] lbha")


def test_certificates_that_are_not_there(unharmed: Host) -> None:
    text = unharmed.toml.read_text()
    unharmed.toml.write_text(
        text.replace("[paths]", '[services.kube]\nkind = "kube-apiserver"\ntls = { ca = "/none/ca" }\n[paths]')
    )
    _refused(unharmed.apply(), 'services.kube.tls.ca = "/none/ca"', "No such file")


def test_a_mistake_in_lbha_toml_is_misuse(unharmed: Host) -> None:
    unharmed.toml.write_text(unharmed.toml.read_text().replace("[cluster]", "[clutser]"))
    done = unharmed.apply()
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    as_json = unharmed.apply("--json")
    assert as_json.returncode == 2 and "clutser" in json.loads(as_json.stdout)["error"]


def test_nothing_to_roll_back_to(unharmed: Host) -> None:
    _refused(unharmed.rollback("50"), "there is no configuration 50 before the present one")


@pytest.mark.parametrize("engine", ["haproxy", "keepalived"])
def test_a_frozen_daemon_holds_nothing_up(host: Host, engine: str) -> None:
    host.configure()
    host.apply()
    before = (host.file("haproxy.cfg"), host.file("keepalived.conf"))
    host.configure((9001, 9003))
    pid = host.worker() if engine == "haproxy" else host.keepalived.pid()
    assert pid is not None
    frozen = [pid]
    if engine == "keepalived":
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        frozen += [int(child) for child in children]
    for each in frozen:
        os.kill(each, signal.SIGSTOP)
    try:
        start = time.monotonic()
        _refused(host.apply(), "frozen", "restart it")
        assert time.monotonic() - start < 15
    finally:
        for each in frozen:
            os.kill(each, signal.SIGCONT)
    assert (host.file("haproxy.cfg"), host.file("keepalived.conf")) == before
    host.configure()
    host.settle()


def test_a_haproxy_without_master_socket() -> None:
    host = Host()
    try:
        host.configure()
        assert host.apply().returncode == 0
        before = host.file("haproxy.cfg")
        host.spawn("haproxy", "-W", "-f", host.paths.haproxy_cfg)
        end = time.monotonic() + 10
        while not Path(host.paths.haproxy_socket).exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        host.configure((9001, 9003))
        _refused(host.apply(), "has no master socket", f"-W -S {host.paths.haproxy_master_socket}")
        assert host.file("haproxy.cfg") == before
    finally:
        host.close()


def test_a_lock_that_is_held(unharmed: Host) -> None:
    holder = subprocess.Popen(
        ["flock", "--no-fork", unharmed.state_dir / "lock", "sh", "-c", "echo held; exec sleep 60"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        _refused(unharmed.apply(), "another lbha apply has held")
    finally:
        holder.kill()
        holder.wait()
