"""Rules that would swallow VRRP, or the segments by which clients learn that the VIP has moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lbha import engine
from lbha.doctor.context import Context
from lbha.doctor.firewall_rules import Rule, Ruleset, iptables_rules, nft_rules
from lbha.doctor.model import Finding, NotChecked, Severity

_SAVE = ("iptables-save", "ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save")


def firewall(context: Context) -> Iterator[Finding]:
    """nftables' rules, and iptables' own where that is installed."""
    interface = context.interface.name
    found = _rulesets()
    if not found:
        raise NotChecked("neither nft nor iptables-save is installed: nobody can list the rules")
    nodes = [address for node in context.cluster.nodes for address in node.addresses]
    six = ":" in context.node.address
    for ruleset in found:
        yield from judge_denials(ruleset.deaf_chains(interface, six=six), nodes)
        yield from judge_rules(ruleset.on_our_way(interface), context.cluster.vips, nodes)


def _rulesets() -> list[Ruleset]:
    found = []
    if engine.installed("nft"):
        code, output = engine.run("nft", ["-j", "list", "ruleset"], 3.0)
        if code != 0:
            raise NotChecked(f"nft list ruleset: {engine.first_problem(output.splitlines())}; run it as root")
        found.append(nft_rules(output))
    for program in filter(engine.installed, _SAVE):
        code, output = engine.run(program, [], 3.0)
        if code == 0:
            found.append(iptables_rules(output, program.removesuffix("-save")))
    return found


def judge_denials(chains: Iterable[str], nodes: Sequence[str]) -> Iterator[Finding]:
    """`chains` that drop what no rule lets through, VRRP with it."""
    for chain in chains:
        yield Finding(
            "firewall",
            Severity.ERROR,
            f"{chain} drops what no rule lets through, and none lets VRRP (protocol 112) through: a node that "
            "starts hears no holder, and takes the VIP beside it",
            f"let it pass in that chain, from and to the nodes ({', '.join(nodes)}): meta l4proto 112 accept",
        )


def judge_rules(
    rules: Iterable[tuple[str, Rule]], vips: Sequence[str], nodes: Sequence[str]
) -> Iterator[Finding]:
    """Hook and rule, in the order in which they stand. Only what an earlier rule of the same chain accepts is
    let through."""
    let_through: set[tuple[str, str]] = set()
    hear_vrrp: set[str] = set()
    for hook, rule in rules:
        if rule.accepts and not rule.invalid:
            let_through |= {(rule.chain, vip) for vip in vips if vip in rule.names}
            hear_vrrp |= {rule.chain} if rule.vrrp else set()
        if not rule.drops:
            continue
        if rule.invalid and not all((rule.chain, vip) in let_through for vip in vips):
            yield Finding(
                "firewall",
                Severity.WARNING,
                f"{rule.chain}: `{rule.text}` drops what conntrack calls INVALID: when the VIP moves, the "
                "answers of clients that are told of it are such packets, and some clients learn it late (8 "
                "of 20, measured)",
                f"before that rule: ip daddr {vips[0]} tcp accept; and ip saddr {vips[0]} on the way out",
            )
        if rule.reset and hook in ("output", "postrouting"):
            yield Finding(
                "firewall",
                Severity.WARNING,
                f"{rule.chain}: `{rule.text}` drops resets that leave this host: clients with a dead "
                "connection to the VIP hang instead of connecting anew",
                f"let them leave: tcp flags rst ip saddr {vips[0]} accept, before that rule",
            )
        concerned = not rule.narrowed or rule.names & set(nodes)
        if rule.vrrp and concerned and rule.chain not in hear_vrrp:
            yield Finding(
                "firewall",
                Severity.ERROR,
                f"{rule.chain}: `{rule.text}` drops VRRP (protocol 112): the nodes do not hear each other, "
                "and each holds the VIP",
                "let it pass from and to the nodes; [failover] vrrp_filter = true lets in nobody else",
            )
