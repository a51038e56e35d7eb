"""What is on the lab's wires, and what faults do to them, with the commands `ip`, `nft` and `ss`. Needs root.

Commands and not pyroute2, because supervisor and drill use this: pyroute2 forks to enter a namespace, which a
process with an event loop and threads should not do, and importing it takes 0.3 s.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lbha.errors import LabError
from lbha.lab.spec import LabNode, LabSpec

NETNS_DIR = Path("/run/netns")
"""Where named namespaces are."""


def port(node: LabNode) -> str:
    """The switch side of the node's cable."""
    return f"p-{node.name}"


def addresses(netns: str) -> dict[str, int]:
    """The addresses on eth0 in that namespace, as the kernel has them, with their prefix lengths."""
    if not (NETNS_DIR / netns).exists():
        raise LabError(f"namespace {netns} is gone; end this lab with `lbha lab down` and start afresh")
    links = json.loads(run(["ip", "-n", netns, "-json", "addr", "show", "dev", "eth0"]))
    return {info["local"]: info["prefixlen"] for link in links for info in link.get("addr_info", ())}


def forward(node: LabNode) -> None:
    """Let the node pass packets on, as kubeadm demands of every node. Where the machine's kernel settings may
    not be written, it does not."""
    switches = "ipv4/ip_forward ipv6/conf/all/forwarding"
    write = f"for each in {switches}; do echo 1 >/proc/sys/net/$each; done 2>/dev/null || true"
    run(["ip", "netns", "exec", node.netns, "sh", "-c", write])


def set_link(spec: LabSpec, node: LabNode, *, up: bool) -> None:
    """Plug or pull the node's cable at the switch."""
    run(["ip", "-n", spec.switch_netns, "link", "set", port(node), "up" if up else "down"])


def forget(node: LabNode) -> None:
    """What a power cycle does to a host's network: foreign addresses, sockets, neighbours and rules are gone.
    (The kernel's memory of redirected connections stays, of no use to anybody without its sockets.)"""
    for address, length in addresses(node.netns).items():
        if address not in (node.address, node.address6) and not address.startswith("fe80:"):
            run(["ip", "-n", node.netns, "addr", "del", f"{address}/{length}", "dev", "eth0"])
    run(["ip", "-n", node.netns, "neigh", "flush", "dev", "eth0"])
    run(["ip", "netns", "exec", node.netns, "nft", "flush", "ruleset"])
    # A killed process leaves its connections to the kernel, which would go on with them after the "boot".
    run(["ip", "netns", "exec", node.netns, "ss", "--no-header", "--kill", "--tcp", "state", "all"])


def cut(spec: LabSpec, both: tuple[LabNode, ...], outgoing: tuple[LabNode, ...]) -> None:
    """Let the switch drop all traffic between each node of `both` and the other nodes, and what each node of
    `outgoing` sends to them. It replaces earlier cuts; the client reaches everybody in any case."""
    run(["ip", "netns", "exec", spec.switch_netns, "nft", "-f", "-"], stdin=cut_rules(spec, both, outgoing))


def cut_rules(spec: LabSpec, both: tuple[LabNode, ...], outgoing: tuple[LabNode, ...]) -> str:
    """The nftables text of `cut`."""
    rules = []
    for node in spec.nodes:
        others = ", ".join(f'"{port(other)}"' for other in spec.nodes if other != node)
        away = f'    iifname "{port(node)}" oifname {{ {others} }}'
        if node in both:
            rules += [f"{away} drop", f'    oifname "{port(node)}" iifname {{ {others} }} drop']
        elif node in outgoing:
            # Without the answers that name its MAC address, nobody could send to it for long either.
            rules.append(f"{away} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept")
            rules.append(f"{away} ether type != arp drop")
    return "\n".join(
        (
            "table bridge lbha",
            "delete table bridge lbha",
            "table bridge lbha {",
            "  chain forward {",
            "    type filter hook forward priority 0; policy accept;",
            *rules,
            "  }",
            "}",
            "",
        )
    )


def run(argv: list[str], *, stdin: str = "") -> str:
    """A command's output; LabError with its last line when it fails or is missing."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv)}` did not end within 30 s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise LabError(f"`{' '.join(argv)}`: {lines[-1]}")
    return done.stdout
