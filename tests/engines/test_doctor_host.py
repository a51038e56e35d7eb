"""The doctor on a host that is broken in each way, and again when it is cured: a real haproxy, a real
keepalived, real sockets, rules and settings of the kernel, in a network namespace. Needs root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from apply_host import ADDRESS, PORT, VIP, Host, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

_LISTEN = """
import socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
s.accept()
"""

_HOLD = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("connected", flush=True)
sys.stdin.readline()
"""

RESERVED = "ipv4/ip_local_reserved_ports"

DENY = "policy drop; "

RULES = """
table inet fw {
    chain zone {
        ip saddr 10.99.7.2 meta l4proto vrrp accept
    }
    chain in {
        type filter hook input priority 0; policy POLICY;
        RULE
    }
    chain out {
        type filter hook output priority 0; policy accept;
        OUT
    }
}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """One node, running, with the other end of its cable in a namespace of its own."""
    host = Host()
    other = f"{host.netns}-far"
    try:
        subprocess.run(["ip", "netns", "add", other], check=True)
        subprocess.run(["ip", "-n", host.netns, "link", "set", "far0", "netns", other], check=True)
        subprocess.run(["ip", "-n", other, "link", "set", "far0", "up"], check=True)
        host.start()
        with sysctl(host, "ipv4/conf/all/forwarding", "1"):
            yield host
    finally:
        host.close()
        subprocess.run(["ip", "netns", "del", other], check=False, capture_output=True)


def doctor(host: Host, name: str, *prefix: str) -> list[str]:
    """The severities that one check finds."""
    argv = [*prefix, sys.executable, "-m", "lbha", "doctor", "-c", str(host.toml), "--json", "--only", name]
    process = host.spawn(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=30)
    assert out, err
    (outcome,) = json.loads(out)["checks"]
    assert outcome["result"] in ("good", "found"), outcome
    found = [each["severity"] for each in outcome["findings"]]
    codes = {"fatal": 5, "error": 4, "warning": 3}
    assert process.returncode == max((codes.get(each, 0) for each in found), default=0)
    return found


def run(host: Host, *command: str) -> None:
    subprocess.run(["ip", "netns", "exec", host.netns, *command], check=True, capture_output=True)


@contextmanager
def sysctl(host: Host, key: str, value: str) -> Iterator[None]:
    """A setting of the namespace, put back afterwards."""
    path = f"/proc/sys/net/{key}"
    before = subprocess.run(
        ["ip", "netns", "exec", host.netns, "cat", path], check=True, capture_output=True, text=True
    ).stdout.strip()
    run(host, "sh", "-c", f"echo '{value}' > {path}")
    try:
        yield
    finally:
        run(host, "sh", "-c", f"echo '{before}' > {path}")


@contextmanager
def far(host: Host, *command: str) -> Iterator[None]:
    """`ip` at the other end of the cable, undone afterwards."""
    netns = f"{host.netns}-far"
    subprocess.run(["ip", "-n", netns, *command], check=True, capture_output=True)
    try:
        yield
    finally:
        undo = ["up" if word == "down" else "del" if word == "add" else word for word in command]
        subprocess.run(["ip", "-n", netns, *undo], check=True, capture_output=True)


@contextmanager
def listening(host: Host, address: str, port: int) -> Iterator[None]:
    """Another program on a port."""
    process = host.spawn(sys.executable, "-c", _LISTEN, address, str(port), stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait(5)


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """A file with other words, put back afterwards."""
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)


def test_a_good_host_has_no_trap(host: Host) -> None:
    """Every check that applies; the agent does not run here, and this namespace has no IPv6 neighbour."""
    process = host.start_lbha("doctor", "-c", str(host.toml), "--json")
    out, err = process.communicate(timeout=30)
    assert out, err
    made = {each["name"]: each for each in json.loads(out)["checks"]}
    found = {name: each["findings"] for name, each in made.items() if each["findings"]}
    assert set(found) == {"agent"}, found
    assert process.returncode == 4
    unchecked = {name: each["why"] for name, each in made.items() if each["result"] == "not checked"}
    assert unchecked == {}, unchecked
    assert all(each["ms"] < 5000 for each in made.values())


def test_the_node_and_its_interface(host: Host) -> None:
    assert doctor(host, "node") == doctor(host, "interface") == []
    with edited(host.toml, f'cp1 = "{ADDRESS}"', 'cp1 = "10.99.7.9"'):
        assert doctor(host, "node") == ["fatal"]
    with edited(host.toml, "[cluster]", '[cluster]\ninterface = "eth9"'):
        assert doctor(host, "interface") == ["fatal"]
    with far(host, "link", "set", "far0", "down"):
        wait_for(lambda: "LOWER_UP" not in host.ip("link", "show", "eth0"), "no carrier")
        assert doctor(host, "interface") == ["error"]
    wait_for(lambda: VIP in host.ip("addr", "show", "dev", "eth0"), "the VIP")


def test_a_stranger_answers_for_the_vip(host: Host) -> None:
    assert doctor(host, "vip-stranger") == []
    with far(host, "addr", "add", f"{VIP}/24", "dev", "far0"):
        assert doctor(host, "vip-stranger") == ["fatal"]
    assert doctor(host, "vip-stranger") == []


def test_a_vip_of_each_family(host: Host) -> None:
    host.ip("addr", "add", "fd99::1/64", "dev", "eth0", "nodad")
    with (
        edited(host.toml, f'vip = "{VIP}"', f'vips = ["{VIP}", "fd99::100"]'),
        edited(host.toml, f'cp1 = "{ADDRESS}"', f'cp1 = ["{ADDRESS}", "fd99::1"]'),
    ):
        assert doctor(host, "vip-stranger") == doctor(host, "ipv6") == []
        with far(host, "addr", "add", "fd99::100/64", "dev", "far0", "nodad"):
            assert doctor(host, "vip-stranger") == ["fatal"]
        with sysctl(host, "ipv6/conf/eth0/disable_ipv6", "1"):  # It takes the IPv6 addresses away.
            assert doctor(host, "ipv6") == ["fatal"]


def test_a_vip_that_keepalived_did_not_add(host: Host) -> None:
    assert doctor(host, "vip-here") == []
    with edited(host.toml, f'vip = "{VIP}"', 'vip = "10.99.7.101"'):
        host.ip("addr", "add", "10.99.7.101/24", "dev", "eth0")
        try:
            assert doctor(host, "vip-here") == ["warning"], "keepalived is MASTER, the prefix is another's"
        finally:
            host.ip("addr", "del", "10.99.7.101/24", "dev", "eth0")


def test_another_program_on_a_port(host: Host) -> None:
    assert doctor(host, "ports") == []
    with listening(host, ADDRESS, PORT):
        assert doctor(host, "ports") == [], "at the node's address it is in nobody's way"
    with edited(host.toml, "[paths]", '[metrics]\naddress = "127.0.0.1:8407"\n[paths]'):
        assert doctor(host, "ports") == []
        for address in ("127.0.0.1", "0.0.0.0"):
            with listening(host, address, 8407):
                assert doctor(host, "ports") == ["fatal"]
    with listening(host, "0.0.0.0", PORT + 1):
        with edited(host.toml, f"port = {PORT}", f'port = {PORT + 1}\nlisten = "vip"'):
            assert doctor(host, "ports") == ["fatal"]
        with edited(host.toml, f"port = {PORT}", f"port = {PORT + 1}"):
            assert doctor(host, "ports") == [], "it would be redirected"


def test_settings_of_the_kernel(host: Host) -> None:
    for name, key, value, expected in (
        ("arp", "ipv4/conf/eth0/arp_ignore", "8", ["error"]),
        ("arp", "ipv4/conf/all/drop_gratuitous_arp", "1", ["warning"]),
        ("local-ports", "ipv4/ip_local_port_range", "1024 60999", ["warning"]),
    ):
        assert doctor(host, name) == [], name
        with sysctl(host, key, value):
            assert doctor(host, name) == expected, key
    reserved = f"{PORT},8404,8406"
    with sysctl(host, "ipv4/ip_local_port_range", "1024 60999"), sysctl(host, RESERVED, reserved):
        assert doctor(host, "local-ports") == []


def test_arp_ignore_really_hides_the_vip(host: Host) -> None:
    """The claim behind `arp`: nobody on the link finds the VIP."""
    ping = ["ip", "netns", "exec", f"{host.netns}-far", sys.executable, "-c", _LOOK_FOR, VIP, str(PORT)]
    with far(host, "addr", "add", "10.99.7.50/24", "dev", "far0"):
        assert subprocess.run(ping, check=False, timeout=20).returncode == 0
        subprocess.run(["ip", "-n", f"{host.netns}-far", "neigh", "flush", "dev", "far0"], check=True)
        with sysctl(host, "ipv4/conf/eth0/arp_ignore", "8"):
            assert subprocess.run(ping, check=False, timeout=20).returncode == 1


_LOOK_FOR = """
import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 4).close()
except OSError: sys.exit(1)
"""


def test_a_host_that_passes_nothing_on(host: Host) -> None:
    with sysctl(host, "ipv4/conf/all/forwarding", "0"):
        assert doctor(host, "forwarding") == ["hint"]
    with sysctl(host, "ipv4/conf/all/forwarding", "1"):
        assert doctor(host, "forwarding") == []


def test_strict_reverse_path_on_two_ways(host: Host) -> None:
    assert doctor(host, "reverse-path") == []
    host.ip("link", "add", "eth1", "type", "veth", "peer", "name", "far1")
    host.ip("addr", "add", "10.98.0.1/24", "dev", "eth1")
    host.ip("link", "set", "eth1", "up")
    try:
        with sysctl(host, "ipv4/conf/all/rp_filter", "1"):
            assert doctor(host, "reverse-path") == ["hint"]
    finally:
        host.ip("link", "del", "eth1")


@pytest.mark.parametrize(
    ("rule", "out", "expected"),
    [
        ("", "", []),
        ("ct state invalid drop", "", ["warning"]),
        ("ct state vmap { established : accept, invalid : drop }", "", ["warning"]),
        (f"ip daddr {VIP} tcp dport {PORT} accept; ct state invalid drop", "", []),
        ("meta l4proto 112 drop", "", ["error"]),
        ("ip protocol vrrp drop", "", ["error"]),
        ("ip saddr 10.99.7.2 ip protocol vrrp accept; meta l4proto 112 drop", "", []),
        ("ip saddr != 10.99.7.2 ip protocol vrrp drop", "", []),
        ('iifname "cali*" ct state invalid drop', "", []),
        ('iifname "eth*" ct state invalid drop', "", ["warning"]),
        ("tcp flags rst drop", "", []),
        ("", "tcp flags & (rst | syn) == rst drop", ["warning"]),
        (
            f"{DENY}ct state established,related accept; iif lo accept; tcp dport {{ 22, 6443 }} accept",
            "",
            ["error"],
        ),
        (f"{DENY}meta l4proto {{ icmp, vrrp }} accept", "", []),
        (f"{DENY}ip saddr 10.99.7.0/24 counter accept", "", []),
        (f"{DENY}iifname eth0 accept", "", []),
        (f"{DENY}iifname eth1 accept", "", ["error"]),
        (f"{DENY}jump zone", "", []),
        (f"{DENY}iifname vmap {{ eth0 : jump zone }}", "", []),
        (f"{DENY}ct state vmap {{ established : accept }}", "", ["error"]),
        ("tcp dport 22 accept; reject", "", ["error"]),
        ("", "tcp dport 22 accept; drop", ["error"]),
    ],
)
def test_a_firewall(host: Host, rule: str, out: str, expected: list[str]) -> None:
    text = RULES.replace("POLICY", "drop" if rule.startswith(DENY) else "accept")
    text = text.replace("RULE", rule.removeprefix(DENY).replace(";", "\n")).replace(
        "OUT", out.replace(";", "\n")
    )
    nft = ["ip", "netns", "exec", host.netns, "nft"]
    subprocess.run([*nft, "-f", "-"], input=text, text=True, check=True)
    try:
        assert doctor(host, "firewall") == expected
    finally:
        subprocess.run([*nft, "delete", "table", "inet", "fw"], check=True)


def test_what_runs_is_not_what_lies_here(host: Host) -> None:
    assert doctor(host, "running-configuration") == []
    cfg = Path(host.paths.haproxy_cfg)
    digest = cfg.read_text().partition("lbha-")[2][:12]
    with edited(cfg, digest, "0" * 12):
        assert doctor(host, "running-configuration") == ["error"]
    with edited(cfg, f"description lbha-{digest}", "description mine"):
        assert doctor(host, "running-configuration") == ["warning"]
    with edited(host.toml, "keepalived.pid", "no.pid"), edited(host.toml, "admin.sock", "no.sock"):
        assert doctor(host, "running-configuration") == ["error", "error"]


def test_rules_that_somebody_has_flushed(host: Host) -> None:
    with edited(host.toml, "[paths]", "[failover]\nvrrp_filter = true\n[paths]"):
        assert host.apply().returncode == 0
        assert doctor(host, "running-configuration") == doctor(host, "firewall") == []
        run(host, "nft", "flush", "ruleset")
        assert doctor(host, "running-configuration") == ["error"]
        assert host.apply().returncode == 0
        assert doctor(host, "running-configuration") == []
    assert host.apply().returncode == 0
    host.settle()


def test_another_keepalived_and_apply(host: Host) -> None:
    """The distribution's unit, on a file of its own: told, and apply is refused unless it is forced."""
    assert doctor(host, "other-keepalived") == []
    conf = host.root / "other.conf"
    conf.write_text(
        f"vrrp_instance x {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 7\n  priority 1\n"
        f"  virtual_ipaddress {{\n    {VIP}/32\n  }}\n}}\n"
    )
    pids = [f"--pid={host.root}/o.pid", f"--vrrp_pid={host.root}/ov.pid", f"--checkers_pid={host.root}/oc.pid"]
    process = host.spawn("keepalived", "--dont-fork", f"--use-file={conf}", *pids)
    try:
        wait_for(lambda: doctor(host, "other-keepalived") == ["fatal"], "it to be seen")
        before = host.file("haproxy.cfg")
        with edited(host.toml, ', "10.99.7.1:9002"', ""):
            done = host.apply()
            assert done.returncode == 1 and "other-keepalived" in done.stderr and "--force" in done.stderr
            assert host.file("haproxy.cfg") == before
            assert host.apply("--force").returncode == 0
            assert host.file("haproxy.cfg") != before
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert doctor(host, "other-keepalived") == []
    assert host.apply().returncode == 0
    assert host.file("haproxy.cfg") == before
    host.settle()


def test_old_workers(host: Host) -> None:
    assert doctor(host, "old-workers") == []
    client = host.spawn(
        sys.executable, "-c", _HOLD, VIP, str(PORT), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdout and client.stdin and client.stdout.readline() == "connected\n"
    with socket.socket(socket.AF_UNIX) as master:
        master.connect(host.paths.haproxy_master_socket)
        master.sendall(b"reload\n")
        master.recv(1000)
    wait_for(lambda: doctor(host, "old-workers") == ["hint"], "the old worker")
    client.communicate("\n", timeout=5)
    wait_for(lambda: doctor(host, "old-workers") == [], "its end")


def test_a_track_script_that_keepalived_would_not_run(host: Host) -> None:
    assert doctor(host, "track-script") == []
    extra = host.root / "extra.sh"
    extra.write_text("#!/bin/sh\nexit 0\n")
    extra.chmod(0o755)
    conf = Path(host.paths.keepalived_conf)
    with edited(conf, "vrrp_instance lbha", f'vrrp_script x {{\n  script "{extra}"\n}}\nvrrp_instance lbha'):
        assert doctor(host, "track-script") == []
        for mode in (0o644, 0o777):
            extra.chmod(mode)
            assert doctor(host, "track-script") == ["error"], oct(mode)
        extra.unlink()
        assert doctor(host, "track-script") == ["error"]
    with edited(conf, "script_user root", "script_user nobody_at_all"):
        assert doctor(host, "track-script") == ["fatal"]


def test_a_real_time_priority_without_the_capability(host: Host) -> None:
    text = Path(host.paths.keepalived_conf).read_text()
    has = bool(int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16) >> 24 & 1)
    assert ("vrrp_rt_priority" in text) == has, "rendered as the host is"
    conf, real_time = Path(host.paths.keepalived_conf), "global_defs {\n  vrrp_rt_priority 40\n"
    with edited(conf, "global_defs {\n", real_time):
        assert doctor(host, "real-time") == ([] if has else ["error", "error"])


def test_a_run_directory_that_was_replaced(host: Host) -> None:
    """The agent's verdict, which keepalived watches no more. `systemctl reload keepalived` is SIGHUP."""
    text = host.toml.read_text()
    run_dir = host.root / "run"
    host.toml.write_text(text.replace('run_dir = "/run/lbha"', f'run_dir = "{run_dir}"'))
    try:
        assert host.apply().returncode == 0
        wait_for(lambda: doctor(host, "verdict-watched") == [], "keepalived to watch it")
        shutil.move(run_dir, host.root / "gone")
        shutil.copytree(host.root / "gone", run_dir, copy_function=_copy)
        os.mkfifo(run_dir / "notify.fifo", 0o600)
        assert doctor(host, "verdict-watched") == ["error"]
        os.kill(int(Path(host.paths.keepalived_pid).read_text()), signal.SIGHUP)
        wait_for(lambda: doctor(host, "verdict-watched") == [], "keepalived to watch the new one")
    finally:
        host.toml.write_text(text)
        host.apply()
        host.settle()


def _copy(source: str, target: str) -> None:
    if not Path(source).is_fifo():
        shutil.copy(source, target)


def test_modes_of_files_and_sockets(host: Host) -> None:
    assert doctor(host, "file-modes") == []
    for path, mode, expected in (
        (host.toml, 0o666, ["error"]),
        (Path(host.paths.haproxy_socket), 0o666, ["error"]),
        (host.state_dir, 0o777, ["error"]),
    ):
        before = path.stat().st_mode & 0o7777
        path.chmod(mode)
        try:
            assert doctor(host, "file-modes") == expected, path
        finally:
            path.chmod(before)
    assert doctor(host, "file-modes") == []


def test_a_full_disk_and_one_that_cannot_be_written(host: Host) -> None:
    assert doctor(host, "disk") == []
    for options, expected in (("size=16m", ["warning"]), ("size=2m", ["error"]), ("size=99m,ro", ["error"])):
        mount = f'mount -t tmpfs -o {options} none {host.state_dir}; exec "$@"'
        assert doctor(host, "disk", "unshare", "-m", "sh", "-ec", mount, "sh") == expected, options


def test_a_haproxy_that_is_slower_than_vrrp(host: Host) -> None:
    assert doctor(host, "detection") == []
    with edited(host.toml, "interval = 0.2, fast_interval = 0.1", "interval = 3.0, fast_interval = 3.0"):
        assert doctor(host, "detection") == ["warning"]


def test_no_agent_answers(host: Host) -> None:
    assert doctor(host, "agent") == ["error"]


def test_without_capabilities_nothing_is_passed_that_was_not_looked_at(host: Host) -> None:
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "lbha", "doctor"]
    names = ("vip-stranger", "virtual-router-id", "firewall")
    process = host.spawn(
        *argv,
        *(word for name in names for word in ("--only", name)),
        *("-c", str(host.toml), "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(timeout=30)
    assert (err, process.returncode) == ("", 1)
    for each in json.loads(out)["checks"]:
        assert each["result"] == "not checked" and "root" in each["why"], each
