"""A service whose port another program has on every address: haproxy behind a redirect, with the real nft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from apply_host import ADDRESS, PORT, VIP, Host, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

TO = PORT + 10_000
REDIRECT = 'listen = "redirect"\n'
VIP_ONLY = 'listen = "vip"\n'
FILTER = "[failover]\nvrrp_filter = true\n"

_PATIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("connected", flush=True)
sys.stdin.readline()
s.sendall(b"x"); print(s.recv(2).decode(), flush=True)
"""

_ADVERT = """
import socket, sys
ear, mouth = (socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) for _ in range(2))
mouth.bind((sys.argv[1], 0)); mouth.sendto(b"advert", (sys.argv[2], 0)); ear.settimeout(0.5)
try: ear.recv(100); print("heard")
except TimeoutError: print("silence")
"""


@pytest.fixture
def host() -> Iterator[Host]:
    """A host where nothing was applied yet and nothing runs."""
    host = Host()
    try:
        yield host
    finally:
        host.close()


def configure(host: Host, service: str = "", more: str = "") -> None:
    """One service, with more keys of its own, and more sections."""
    host.configure(extra=more)
    text = host.toml.read_text()
    host.toml.write_text(
        text.replace('[services.web]\nkind = "tcp"\n', f'[services.web]\nkind = "tcp"\n{service}')
    )


def nft(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", host.netns, "nft", *arguments], capture_output=True, text=True, check=False
    )


def table(host: Host) -> str:
    """The rules as the kernel has them; empty when there is no table."""
    return nft(host, "list", "table", "inet", "lbha").stdout


def tables(host: Host) -> list[str]:
    return nft(host, "list", "tables").stdout.splitlines()


def start(host: Host) -> None:
    """Daemons, servers and the VIP, on what was applied."""
    host.start_servers(9001, 9002, 9003)
    host.start_haproxy()
    host.start_keepalived()
    wait_for(lambda: VIP in host.ip("addr", "show", "dev", "eth0"), "the VIP")


def listening(host: Host) -> set[str]:
    """Where haproxy listens for the service."""
    done = subprocess.run(
        ["ip", "netns", "exec", host.netns, "ss", "-Hltn", "src", VIP],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split()[3] for line in done.stdout.splitlines()}


def test_a_port_that_is_taken_on_every_address_is_seen_and_stays_redirected(host: Host) -> None:
    taker = host.start_servers(PORT, address="0.0.0.0")
    configure(host)
    done = host.apply()
    assert done.returncode == 0, done.stderr
    name = psutil.Process(taker.pid).name()
    assert f"web: redirected, {PORT} -> {TO}: {name} (pid {taker.pid}) listens on 0.0.0.0:{PORT}" in done.stdout
    start(host)
    assert listening(host) == {f"{VIP}:{TO}"}
    stop = host.client(40)
    assert host.apply().stdout.splitlines()[:3] == [
        "haproxy: unchanged",
        "nftables: unchanged",
        "keepalived: unchanged",
    ]
    taker.kill()  # restarted, or gone: the port is free, and that proves nothing
    taker.wait()
    assert f'{TO}: since an earlier apply; listen = "vip" ends it' in host.apply().stdout
    host.start_servers(PORT, address="0.0.0.0")
    seen = stop()
    assert seen.done > 0 and seen.failed == []
    nft(host, "flush", "ruleset")  # as a reboot does, or `systemctl restart nftables`
    planned = host.apply("--dry-run")
    assert "nftables: would reload" in planned.stdout and table(host) == ""
    assert "nftables: reloaded" in host.apply().stdout and f"dnat ip to {VIP}:{TO}" in table(host)


def test_an_apiserver_on_the_nodes_address_needs_no_redirect_and_no_nft(host: Host) -> None:
    host.start_servers(PORT)
    configure(host)
    hide = f"mkdir {host.root}/empty; mount --bind {host.root}/empty /usr/sbin"
    process = host.spawn(
        "unshare", "-m", "sh", "-ec", f"cp /usr/sbin/haproxy /usr/sbin/keepalived {host.root}; {hide}; "
        f"PATH={host.root}:/usr/bin:/bin exec {sys.executable} -m lbha apply -c {host.toml}",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "nftables" not in out and "redirected" not in out
    assert not (host.state_dir / "lbha.nft").exists() and tables(host) == []


def test_without_nft_a_redirect_is_refused(host: Host) -> None:
    configure(host, REDIRECT)
    process = host.spawn(
        "unshare", "-m", "sh", "-ec",
        f"cp /usr/sbin/haproxy /usr/sbin/keepalived {host.root}; mkdir {host.root}/empty; "
        f"mount --bind {host.root}/empty /usr/sbin; "
        f"PATH={host.root}:/usr/bin:/bin exec {sys.executable} -m lbha apply -c {host.toml}",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "nft is not installed; apt-get install nftables" in err
    assert not Path(host.paths.haproxy_cfg).exists()


def test_the_table_goes_and_comes_with_the_configuration_and_with_rollbacks(host: Host) -> None:
    nft(host, "add", "table", "inet", "other")
    configure(host, VIP_ONLY)
    assert host.apply().returncode == 0
    start(host)
    assert listening(host) == {f"{VIP}:{PORT}"} and tables(host) == ["table inet other"]
    configure(host, REDIRECT)
    done = host.apply()
    assert "haproxy: reloaded" in done.stdout and "nftables: reloaded" in done.stdout
    assert listening(host) == {f"{VIP}:{TO}"} and f"dnat ip to {VIP}:{TO}" in table(host)
    assert host.rollback().returncode == 0  # to before lbha.nft was there
    assert listening(host) == {f"{VIP}:{PORT}"} and tables(host) == ["table inet other"]
    stop = host.client(40)
    assert host.rollback().returncode == 0
    stop()
    assert listening(host) == {f"{VIP}:{TO}"} and f"dnat ip to {VIP}:{TO}" in table(host)
    configure(host, VIP_ONLY)
    stop = host.client(40)
    assert host.apply().returncode == 0 and tables(host) == ["table inet other"]
    assert host.apply("--json").stdout.count('"unchanged"') == 4
    assert stop().done > 0 and listening(host) == {f"{VIP}:{PORT}"}
    assert "no rule" in (host.state_dir / "lbha.nft").read_text()


def test_open_connections_live_through_a_new_table(host: Host) -> None:
    configure(host, REDIRECT)
    assert host.apply().returncode == 0
    start(host)
    patient = host.spawn(
        sys.executable, "-c", _PATIENT, VIP, str(PORT),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert patient.stdout and patient.stdout.readline() == "connected\n"
    stop = host.client(100)
    for more in (FILTER, "", FILTER, ""):
        configure(host, REDIRECT, more)
        assert "nftables: reloaded" in host.apply().stdout
    assert stop().failed == []
    out, err = patient.communicate("go\n", timeout=10)
    assert (out, err) == ("ok\n", "")


def _own_template(host: Host, change: Callable[[str], str]) -> None:
    shipped = Path(__file__).parents[2] / "templates/nftables/lbha.nft.j2"
    own = host.root / "templates/nftables/lbha.nft.j2"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(change(shipped.read_text()))
    configure(host, REDIRECT, f'[templates]\ndirectory = "{host.root}/templates"\n')


def test_rules_that_are_refused_or_do_not_load_leave_all_as_it_was(host: Host) -> None:
    configure(host)
    assert host.apply().returncode == 0
    start(host)
    before, stop = host.file("haproxy.cfg"), host.client(40)
    _own_template(host, lambda text: text.replace("dnat", "dant"))
    done = host.apply()
    assert done.returncode == 1 and "nft refuses" in done.stderr and "line 9:" in done.stderr, done.stderr
    assert stop().failed == []
    # It loads, but the kernel shows two digests: haproxy has been reloaded already, and must go back.
    other = '    tcp dport 1 accept comment "lbha-0123456789ab"\n'
    _own_template(host, lambda text: text.replace("  chain services {\n", f"  chain services {{\n{other}"))
    done = host.apply("--json")
    assert json.loads(done.stdout)["result"] == "rolled back", done.stdout
    assert "haproxy and nftables runs them" in done.stdout
    assert host.file("haproxy.cfg") == before and listening(host) == {f"{VIP}:{PORT}"}
    assert tables(host) == [] and not (host.state_dir / "lbha.nft").exists()


@pytest.mark.parametrize("service", [REDIRECT, VIP_ONLY])
def test_what_a_killed_apply_left_undone_is_done(host: Host, service: str) -> None:
    """Killed while haproxy reloads: lbha.nft says already what the kernel does not yet."""
    configure(host, VIP_ONLY if service == REDIRECT else REDIRECT)
    assert host.apply().returncode == 0
    start(host)
    laid, before = host.state_dir / "lbha.nft", table(host)
    text = laid.read_text() if laid.exists() else ""
    configure(host, service)
    process = host.start_lbha("apply", "-c", str(host.toml))
    wait_for(lambda: laid.exists() and laid.read_text() != text, "lbha.nft")
    process.kill()
    process.communicate()
    assert table(host) == before, "killed too late to show anything"
    done = host.apply()
    assert done.returncode == 0 and "nftables: reloaded" in done.stdout, done
    assert ("dnat" in table(host)) == (service == REDIRECT)
    assert listening(host) == {f"{VIP}:{TO if service == REDIRECT else PORT}"}


def test_only_peers_may_speak_vrrp(host: Host) -> None:
    configure(host, more=FILTER)
    text = host.toml.read_text()
    host.toml.write_text(text.replace("[services.web]", 'cp2 = "10.99.7.2"\n[services.web]'))
    assert host.apply().returncode == 0
    assert "nat" not in table(host)
    for sender, heard in (("10.99.7.2", True), ("10.99.7.3", False)):
        host.ip("addr", "add", f"{sender}/32", "dev", "lo")
        process = host.spawn(
            sys.executable, "-c", _ADVERT, sender, ADDRESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate(timeout=10)
        assert (out.strip(), err) == ("heard" if heard else "silence", "")
