"""lbha on three machines that systemd boots, installed as the README says. The tests follow one another: each
finds the machines as the last one left them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from cluster import VIP, ControlPlane, copy
from machine import Machine, eventually, readme_blocks

from lbha.lab.drill import warm
from lbha.lab.load import Load

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parent.parent.parent
UNITS = ("haproxy.service", "keepalived.service", "lbha-agent.service")


@pytest.fixture(scope="module")
def before(control_plane: ControlPlane) -> set[str]:
    """Every file of cp3's before lbha came."""
    return everything(control_plane.machines["cp3"])


@pytest.fixture
def plane(control_plane: ControlPlane) -> ControlPlane:
    return control_plane


def everything(machine: Machine) -> set[str]:
    """The files of a machine, but for what apt, dpkg, systemd and etcd keep."""
    found = machine.shell("find /etc /opt /usr /var/lib /run /root -xdev -not -type d 2>/dev/null | sort")
    aside = r"/var/lib/(dpkg|apt|systemd|ucf|etcd)/|/run/(systemd|log|dbus|user|udev)/|/etc/ld\.so\.cache"
    return {line for line in found.splitlines() if not re.match(aside, line) and "__pycache__" not in line}


def all_say(machines: Iterable[Machine], line: str) -> bool:
    """Whether each one's haproxy.cfg has it."""
    return all(line in machine.read("/etc/haproxy/haproxy.cfg") for machine in machines)


def runs_anew(machine: Machine, unit: str, pid: int) -> bool:
    """Whether the unit is active with another process."""
    return machine.pid(unit) not in (0, pid) and machine.active(unit)


def failed(load: Load) -> list[str]:
    """What became of requests and writes that failed."""
    requests = [f"request: {each.error}" for each in load.requests() if each.error]
    return requests + [f"write: {each.error}" for each in load.writes() if each.error]


@pytest.mark.usefixtures("before")
def test_installed_by_the_readmes_own_steps(plane: ControlPlane, package: Path) -> None:
    everywhere, first, copying, start = readme_blocks((ROOT / "README.md").read_text())
    began = time.monotonic()
    for machine in plane.machines.values():
        machine.write(f"/root/{package.name}", package.read_bytes())
        machine.shell(f"cd /root; {everywhere}", timeout=300)
        assert not machine.active("lbha-agent.service")
    one = plane.machines["cp1"]
    one.shell(f"cd /root; {first}")
    # The loop over ssh and scp.
    assert re.findall(r"\bscp (?:-p )?(\S+)", copying) == ["/etc/lbha/lbha.toml", "pki/$node/*"]
    copy(one, "/etc/lbha/lbha.toml", plane.others(one))
    for machine in plane.machines.values():
        for name, mode in (("ca.crt", 0o644), ("node.crt", 0o644), ("node.key", 0o600)):
            copy(one, f"/root/pki/{machine.name}/{name}", [machine], f"/etc/lbha/pki/{name}", mode)
    planned = one("lbha", "install", "--dry-run")
    assert "would lay /etc/systemd/system/lbha-agent.service\n" in planned
    assert "would enable and start lbha-agent.service" in planned
    assert not (one.root / "etc/systemd/system/lbha-agent.service").exists()
    said = {}
    steps = [line.partition(" #")[0].strip() for line in start.splitlines()]
    assert steps == ["lbha install", "lbha status", "lbha doctor"]
    for machine in plane.machines.values():
        said[machine.name] = machine("lbha", "install")
    print(f"\n{said['cp1']}\ninstalled in {time.monotonic() - began:.0f} s")
    plane.settled()
    print(f"and settled after {time.monotonic() - began:.0f} s in all\n{one('lbha', 'status')}")
    for machine in plane.machines.values():
        assert machine.active(*UNITS, "lbha-drain.service")
        assert machine.shell("systemctl --failed --plain --no-legend") == ""
        assert machine("lbha", "install") == "nothing to do: everything is installed and runs"
        found = machine("lbha", "doctor", check=False)
        assert not re.search(r"^ *error ", found, re.MULTILINE), found


def test_the_package_brings_a_man_page_and_completion(plane: ControlPlane) -> None:
    machine = next(iter(plane.machines.values()))
    assert machine.shell("zcat /usr/share/man/man1/lbha.1.gz").startswith(".TH LBHA 1 ")
    press = "COMP_WORDS=(lbha st); COMP_CWORD=1; _lbha_completion lbha; echo ${COMPREPLY[@]}"
    assert machine("bash", "-c", f". /usr/share/bash-completion/completions/lbha; {press}") == "status"
    for file in ("zsh/vendor-completions/_lbha", "fish/vendor_completions.d/lbha.fish"):
        assert "_LBHA_COMPLETE=" in machine.read(f"/usr/share/{file}")


def test_the_agent_works_within_its_limits(plane: ControlPlane) -> None:
    """Its capabilities are few, its file system is read-only, and nothing that it does is refused."""
    for machine in plane.machines.values():
        capabilities = re.search(r"CapBnd:\s*(\w+)", machine.read_process("lbha-agent", "status"))
        assert capabilities is not None and int(capabilities[1], 16).bit_count() == 6
        assert re.search(r"^\S+ / \S+ ro,", machine.read_process("lbha-agent", "mounts"), re.MULTILINE)
        log = machine("journalctl", "-u", "lbha-agent", "--no-pager")
        assert not re.search(r"not permitted|[Pp]ermission denied|Read-only|Traceback", log), log
    # The apiserver has 0.0.0.0:6443. Rules that are lost the agent loads again.
    machine = plane.holder
    machine("nft", "delete", "table", "inet", "lbha")
    machine("systemctl", "reload", "lbha-agent")
    eventually("nftables has its rules again", lambda: "dnat" in machine("nft", "list", "ruleset"))


def test_a_changed_file_is_followed(plane: ControlPlane) -> None:
    for machine in plane.machines.values():
        text = machine.read("/etc/lbha/lbha.toml")
        text = text.replace('kind = "kube-apiserver"', 'kind = "kube-apiserver"\nbalance = "roundrobin"')
        # The tests have more to do than wait.
        machine.write("/etc/lbha/lbha.toml", text.replace("[health]", "[health]\nquarantine = 3"))
    eventually("haproxy.cfg says roundrobin", lambda: all_say(plane.machines.values(), "balance roundrobin"))
    plane.settled()


def test_after_a_boot_everything_comes_up_in_order(plane: ControlPlane) -> None:
    machine = plane.others(plane.holder)[0]
    machine.reboot()
    plane.settled(60)
    started = [
        int(machine("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit))
        for unit in (*UNITS, "lbha-drain.service")
    ]
    assert started == sorted(started) and started[0] > 0
    assert machine.shell("systemctl --failed --plain --no-legend") == ""


def test_a_reboot_of_each_holder_in_turn_refuses_nobody_and_loses_no_write(plane: ControlPlane) -> None:
    rebooted = []
    for _ in plane.machines:
        machine = plane.holder
        rebooted.append(machine.name)
        with Load(plane.spec) as load:
            warm(load)
            machine.reboot()
            time.sleep(1)
            load.probe()
            verdict = load.verify()
            print(f"\n{machine.name} rebooted, {len(load.requests())} requests: {failed(load)}, {verdict}")
            assert_smooth(load)
            assert verdict.lost == 0 and verdict.acknowledged > 20
        lost = events(machine, "vip-lost")
        assert lost[-1]["LBHA_CAUSE"] == "drain", lost[-1]
        plane.settled(60)
        assert "drained" not in machine("lbha", "status")
    assert len(set(rebooted)) >= 2


def assert_smooth(load: Load) -> None:
    """Nobody was refused or kept waiting. What is under way when the VIP leaves, or a server behind it stops,
    is cut: at each of these moments one request (they take some 10 ms, each 20 ms) and one write at most. An
    etcd that stops answers what it has in hand with 500."""
    broken = failed(load)
    writes = [each for each in broken if each.startswith("write: ")]
    assert set(broken) <= {"request: reset", "write: reset", "write: status 500"}, broken
    assert len(broken) - len(writes) <= 2 and len(writes) <= 2, broken


def events(machine: Machine, kind: str) -> list[dict[str, str]]:
    """Of the journal, with lbha's own fields."""
    said = machine("journalctl", "-u", "lbha-agent", "-o", "json", "--no-pager", f"LBHA_EVENT={kind}")
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_the_journal_can_be_asked_by_field(plane: ControlPlane) -> None:
    gained = events(plane.holder, "vip-gained")[-1]
    assert (gained["LBHA_NODE"], gained["LBHA_CLUSTER"]) == (plane.holder.name, "prod")
    assert gained["MESSAGE"].startswith("vip-gained: ") and gained["PRIORITY"] == "6"
    assert gained["SYSLOG_IDENTIFIER"] == "lbha"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_that_is_killed_or_restarted_comes_back(plane: ControlPlane, unit: str) -> None:
    machine = plane.holder
    for action in (("restart",), ("kill", "--signal=KILL")):
        pid = machine.pid(unit)
        machine("systemctl", *action, unit)
        if action == ("restart",):
            stopped = machine.shell(f"journalctl -u {unit} -n 20 --no-pager -o cat")
            assert "Failed with result" not in stopped.rpartition("Stopping ")[2], stopped
        eventually(f"{unit} runs anew after {' '.join(action)}", partial(runs_anew, machine, unit, pid))
        eventually("one machine holds the VIP", lambda: len(plane.holders()) == 1)
        if unit == "lbha-agent.service":
            assert plane.holder is machine
        plane.settled()


def test_pulling_the_plug_of_the_holder_tells_its_clients(plane: ControlPlane) -> None:
    machine = plane.holder
    with Load(plane.spec) as load:
        warm(load)
        machine.power_off()
        eventually("another machine holds the VIP", lambda: len(plane.holders()) == 1, 5)
        time.sleep(2)
        probed = load.probe()
    print(f"\n{machine.name} off: {len(failed(load))} failed, {probed.unaware} watches unaware")
    told = events(plane.holder, "tickle")
    plane.boot(machine)
    plane.settled(60)
    assert told and probed.unaware == 0


def test_an_upgrade_moves_nothing(plane: ControlPlane, package: Path, tmp_path: Path) -> None:
    newer = next_revision(package, tmp_path)
    machine = plane.holder
    pids = [machine.pid(unit) for unit in UNITS]
    with Load(plane.spec) as load:
        warm(load)
        machine.write(f"/root/{newer.name}", newer.read_bytes())
        machine("apt-get", "install", "-y", f"/root/{newer.name}")
        time.sleep(1)
        load.probe()
        assert failed(load) == []
    assert plane.holder is machine
    now = [machine.pid(unit) for unit in UNITS]
    assert now[:2] == pids[:2] and now[2] not in (0, pids[2])
    assert machine("dpkg-query", "-W", "-f", "${Version}", "lbha").endswith("-2")
    plane.settled()


def next_revision(package: Path, directory: Path) -> Path:
    """The same package with the next revision's number."""
    tree, newer = directory / "tree", directory / package.name.replace("-1_", "-2_")
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)-1$", r"\1-2", control.read_text()))
    build = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z0", "-b", str(tree), str(newer)]
    subprocess.run(build, check=True, capture_output=True)
    shutil.rmtree(tree)
    return newer


def test_uninstalled_and_purged_nothing_is_left(plane: ControlPlane, before: set[str]) -> None:
    machine = plane.machines["cp3"]
    for other in plane.others(machine):
        other("lbha", "drain", "--force", "--reason", "cp3 shall have it")
    eventually("cp3 holds the VIP", lambda: plane.holders() == ["cp3"])
    for other in plane.others(machine):
        other("lbha", "undrain")
    plane.settled()
    copies = {f"/root/{path.name}" for path in (machine.root / "root").glob("*.deb")}
    with Load(plane.spec) as load:
        warm(load)
        print(f"\n{machine('lbha', 'uninstall')}")
        time.sleep(1)
        load.probe()
        assert_smooth(load)
    assert len(plane.holders()) == 1 and not machine.holds(VIP)
    assert not machine.active("keepalived.service") and machine.active("haproxy.service")
    assert "lbha" not in machine.read("/etc/haproxy/haproxy.cfg")
    assert machine("lbha", "uninstall") == "lbha install has laid nothing here"
    machine("apt-get", "purge", "-y", "lbha", "haproxy", "keepalived", "nftables")
    machine("apt-get", "autoremove", "--purge", "-y")
    # What haproxy and keepalived recommend stays installed; the certificates were the operator's to lay.
    owned = set(machine.shell("cat /var/lib/dpkg/info/*.list").splitlines())
    left = everything(machine) - before - owned - copies
    theirs = re.compile(
        r"/etc/lbha/pki/|/usr/share/mime/|/etc/networks|/run/adduser|/run/haproxy|/var/lib/haproxy/"
    )
    assert "\n".join(sorted(path for path in left if not theirs.match(path))) == ""
    known = machine("systemctl", "list-unit-files", "--no-legend", "lbha*", check=False)
    assert ".service" not in known and ".timer" not in known
    assert machine.shell("systemctl --failed --no-legend") == ""


def test_script_mode_has_a_timer_that_applies(plane: ControlPlane) -> None:
    machines = plane.others(plane.machines["cp3"])
    for machine in machines:
        text = machine.read("/etc/lbha/lbha.toml")
        machine.write("/etc/lbha/lbha.toml", text.replace('# mode = "agent"', 'mode = "script"'))
        said = machine("lbha", "install")
        assert "stopped and disabled lbha-agent.service" in said and "started lbha-reload.timer" in said
    eventually("one machine holds the VIP", lambda: len(plane.holders()) == 1)
    for machine in machines:
        text = machine.read("/etc/lbha/lbha.toml")
        machine.write("/etc/lbha/lbha.toml", text.replace('balance = "roundrobin"', 'balance = "static-rr"'))
    eventually("the timer has applied lbha.toml", lambda: all_say(machines, "balance static-rr"), 25)
    for machine in machines:
        assert machine.shell("systemctl --failed --plain --no-legend") == ""
        assert "haproxy: " in machine("journalctl", "-u", "lbha-reload", "--no-pager")
