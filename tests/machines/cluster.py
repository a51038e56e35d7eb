"""Three nodes as kubeadm leaves them: etcd over TLS, an apiserver on 0.0.0.0:6443, no lbha yet."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from machine import Machine, Network, eventually

from lbha.lab import pki
from lbha.lab.spec import LabNode, LabSpec, save

VIP = "10.0.0.100"
ADDRESSES = {"cp1": "10.0.0.11", "cp2": "10.0.0.12", "cp3": "10.0.0.13"}
CLIENT = "10.0.0.200/24"

_NETWORK = """\
[Match]
Name=host0

[Network]
Address={address}/24
LinkLocalAddressing=no
KeepConfiguration=yes
"""

_ETCD = """\
ETCD_NAME={name}
ETCD_LISTEN_CLIENT_URLS=https://{address}:2379
ETCD_ADVERTISE_CLIENT_URLS=https://{address}:2379
ETCD_LISTEN_PEER_URLS=https://{address}:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://{address}:2380
ETCD_INITIAL_CLUSTER={members}
ETCD_CERT_FILE=/etc/etcd/server.crt
ETCD_KEY_FILE=/etc/etcd/server.key
ETCD_TRUSTED_CA_FILE=/etc/kubernetes/pki/etcd/ca.crt
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_CERT_FILE=/etc/etcd/server.crt
ETCD_PEER_KEY_FILE=/etc/etcd/server.key
ETCD_PEER_TRUSTED_CA_FILE=/etc/kubernetes/pki/etcd/ca.crt
ETCD_PEER_CLIENT_CERT_AUTH=true
"""

_APISERVER = f"""\
[Unit]
Description=stand-in for kube-apiserver
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=/opt/stand-in/usr/lib/lbha/bin/python -m lbha.lab.apiserver --address 0.0.0.0 --port 6443 \\
    --cert /etc/etcd/server.crt --key /etc/etcd/server.key --ca /etc/kubernetes/pki/ca.crt \\
    --etcd https://{VIP}:2379 --etcd-cert /etc/kubernetes/pki/etcd/healthcheck-client.crt \\
    --etcd-key /etc/kubernetes/pki/etcd/healthcheck-client.key --error-file /run/apiserver-error
Restart=always

[Install]
WantedBy=multi-user.target
"""

_ETCD_RESTARTS = """\
# As kubelet does with kubeadm's etcd. Debian's unit starts before the machine has its address, and once it has
# ended for that it stays so.
[Unit]
After=network-online.target
[Service]
Restart=always
RestartSec=1
"""

_UNWANTED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "console-getty.service")


class ControlPlane:
    """The machines, their network, and what a client of theirs must know (`spec`)."""

    def __init__(self, work: Path, base: Path, package: Path) -> None:
        name = work.name
        self.network = Network(name, CLIENT)
        self.machines = {
            node: Machine(node, address, work, base, self.network.switch) for node, address in ADDRESSES.items()
        }
        self._stand_in = work / "stand-in"
        subprocess.run(["dpkg-deb", "-x", str(package), str(self._stand_in)], check=True)
        lab = work / "lab"
        nodes = tuple(LabNode(node, address, "fd00::1", "", lab / node) for node, address in ADDRESSES.items())
        self.spec = LabSpec(
            name=name,
            setup="lbha-agent",
            directory=lab,
            nodes=nodes,
            vip=VIP,
            client_netns=self.network.client,
            switch_netns=self.network.switch,
            apiserver_port=6443,
            etcd_port=2379,
            ca=lab / "ca.crt",
            client_cert=lab / "client.crt",
            client_key=lab / "client.key",
            apiserver="stand-in",
            stacked=True,
        )
        for directory in (self.spec.log, *(node.directory for node in nodes)):
            directory.mkdir(parents=True)
        pki.write(self.spec)
        save(self.spec)
        for node in nodes:
            self._furnish(self.machines[node.name], node)

    def _furnish(self, machine: Machine, node: LabNode) -> None:
        members = ",".join(f"{name}=https://{address}:2380" for name, address in ADDRESSES.items())
        machine.write("/etc/hostname", f"{machine.name}\n")
        machine.write("/etc/hosts", "127.0.0.1 localhost\n")
        machine.write("/etc/machine-id", f"{machine.address.encode().hex():0>32}\n")
        machine.write("/etc/systemd/network/10-lan.network", _NETWORK.format(address=machine.address))
        etcd = _ETCD.format(name=machine.name, address=machine.address, members=members)
        machine.write("/etc/default/etcd", etcd)
        machine.write("/etc/systemd/system/etcd.service.d/restart.conf", _ETCD_RESTARTS)
        machine.write("/etc/systemd/system/kube-apiserver.service", _APISERVER)
        (machine.root / "var/log/journal").mkdir(parents=True, exist_ok=True)
        ca = self.spec.ca.read_bytes()
        machine.write("/etc/kubernetes/pki/ca.crt", ca)
        machine.write("/etc/kubernetes/pki/etcd/ca.crt", ca)
        for kind, mode in (("crt", 0o644), ("key", 0o600)):
            client = (self.spec.directory / f"client.{kind}").read_bytes()
            machine.write(f"/etc/kubernetes/pki/etcd/healthcheck-client.{kind}", client, mode)
            machine.write(f"/etc/etcd/server.{kind}", (node.directory / f"server.{kind}").read_bytes(), mode)
        tree = str(machine.root)
        subprocess.run(["chroot", tree, "chown", "-R", "etcd:", "/etc/etcd"], check=True)
        wanted = ("systemd-networkd", "systemd-networkd-wait-online", "etcd", "kube-apiserver")
        for verb, units in (("enable", wanted), ("mask", _UNWANTED)):
            subprocess.run(
                ["systemctl", f"--root={tree}", "--quiet", verb, *units], check=True, capture_output=True
            )

    def power_on(self) -> None:
        """Boot all of them and wait until they have booted."""
        for machine in self.machines.values():
            self._power_on(machine)
        for machine in self.machines.values():
            machine.wait_booted()

    def boot(self, machine: Machine) -> None:
        """Boot one that is off."""
        self._power_on(machine)
        machine.wait_booted()

    def _power_on(self, machine: Machine) -> None:
        stand_in = f"--bind-ro={self._stand_in}:/opt/stand-in"
        machine.power_on("--boot", "--console=pipe", "--network-bridge=br0", stand_in)

    def destroy(self) -> None:
        """Leave nothing."""
        for machine in self.machines.values():
            machine.destroy()
        self.network.destroy()

    def holders(self) -> list[str]:
        """Who has the VIP."""
        return [name for name, machine in self.machines.items() if machine.holds(VIP)]

    @property
    def holder(self) -> Machine:
        """The only machine that has the VIP."""
        (name,) = self.holders()
        return self.machines[name]

    def others(self, *but: Machine) -> list[Machine]:
        """The machines besides those."""
        return [machine for machine in self.machines.values() if machine not in but]

    def settled(self, seconds: float = 60.0) -> None:
        """Until one holds the VIP, and every lbha finds nothing wrong."""
        eventually("one machine holds the VIP", lambda: len(self.holders()) == 1, seconds)
        said = ["not asked"]

        def healthy() -> bool:
            said[0] = self.problems()
            return not said[0]

        try:
            eventually("lbha status finds nothing wrong", healthy, seconds)
        except AssertionError:
            raise AssertionError(f"not within {seconds:g} s healthy, but:\n{said[0]}") from None

    def problems(self) -> str:
        """What `lbha status` says on the machines where it finds something wrong."""
        said = (machine("lbha", "status", check=False) for machine in self.machines.values())
        return "\n".join(each for each in said if each.startswith("exit"))

    def each(self, *argv: str) -> list[str]:
        """What a command says on every machine."""
        return [machine(*argv) for machine in self.machines.values()]


def copy(source: Machine, path: str, targets: Iterable[Machine], to: str = "", mode: int = 0o644) -> None:
    """As scp does; `to` where that is another path."""
    data = (source.root / path.lstrip("/")).read_bytes()
    for target in targets:
        target.write(to or path, data, mode)
