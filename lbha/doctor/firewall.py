"""Rules that would swallow VRRP, or the segments by which clients learn that the VIP has moved."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbha import engine
from lbha.doctor.context import Context
from lbha.doctor.model import Finding, NotChecked, Severity

HOOKS = ("prerouting", "input", "output", "postrouting")
"""Where packets of this host itself pass. FORWARD, where kube-proxy drops INVALID ones, is others' way."""

_OURS = ("inet", "lbha")
_PROTOCOLS = ("l4proto", "ip protocol", "ip6 nexthdr")
_DROPS = {"drop", "reject"}
_LOOKS_FOR = (
    ("state", "invalid", "invalid"),
    *((field, number, "vrrp") for field in _PROTOCOLS for number in ("112", "vrrp")),
)
"""An expression of nft (its values, joined), a value in it, and what a rule with both looks for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: where it stands and what it does, as text for people. `invalid`, `vrrp`, `reset`: what it looks
    for; `drops`, `accepts`: its verdict; `names`: the addresses that it is about; `narrowed`: it is about some
    addresses only, those or all but those."""

    where: str
    text: str
    hook: str
    invalid: bool
    vrrp: bool
    reset: bool
    drops: bool
    accepts: bool
    names: frozenset[str] = frozenset()
    narrowed: bool = False


def firewall(context: Context) -> Iterator[Finding]:
    """nftables' rules, and iptables' own where that is installed."""
    rules: list[Rule] = []
    if engine.installed("nft"):
        code, output = engine.run("nft", ["-j", "list", "ruleset"], 3.0)
        if code != 0:
            raise NotChecked(f"nft list ruleset: {engine.first_problem(output.splitlines())}; run it as root")
        rules += nft_rules(output)
    looked = bool(engine.installed("nft"))
    for program in ("iptables-save", "ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save"):
        if engine.installed(program):
            code, output = engine.run(program, [], 3.0)
            if code == 0:
                looked = True
                rules += iptables_rules(output, program.removesuffix("-save"))
    if not looked:
        raise NotChecked("neither nft nor iptables-save is installed: nobody can list the rules")
    nodes = [address for node in context.cluster.nodes for address in node.addresses]
    yield from judge_rules(rules, context.cluster.vips, nodes)


def judge_rules(rules: Sequence[Rule], vips: Sequence[str], nodes: Sequence[str]) -> Iterator[Finding]:
    """In the order in which they stand. Only what an earlier rule of the same chain accepts is let through."""
    let_through: set[tuple[str, str]] = set()
    hear_vrrp: set[str] = set()
    for rule in rules:
        if rule.accepts and not rule.invalid:
            let_through |= {(rule.where, vip) for vip in vips if vip in rule.names}
            hear_vrrp |= {rule.where} if rule.vrrp else set()
        if not rule.drops:
            continue
        if rule.invalid and not all((rule.where, vip) in let_through for vip in vips):
            yield Finding(
                "firewall",
                Severity.WARNING,
                f"{rule.where}: `{rule.text}` drops what conntrack calls INVALID: when the VIP moves, the "
                "answers of clients that are told of it are such packets, and some clients learn it late (8 "
                "of 20, measured)",
                f"before that rule: ip daddr {vips[0]} tcp accept; and ip saddr {vips[0]} on the way out",
            )
        if rule.reset and rule.hook in ("output", "postrouting"):
            yield Finding(
                "firewall",
                Severity.WARNING,
                f"{rule.where}: `{rule.text}` drops resets that leave this host: clients with a dead "
                "connection to the VIP hang instead of connecting anew",
                f"let them leave: tcp flags rst ip saddr {vips[0]} accept, before that rule",
            )
        concerned = not rule.narrowed or rule.names & set(nodes)
        if rule.vrrp and concerned and rule.where not in hear_vrrp:
            yield Finding(
                "firewall",
                Severity.ERROR,
                f"{rule.where}: `{rule.text}` drops VRRP (protocol 112): the nodes do not hear each other, "
                "and each holds the VIP",
                "let it pass from and to the nodes; [failover] vrrp_filter = true lets in nobody else",
            )


def nft_rules(output: str) -> list[Rule]:
    """Those of `nft -j list ruleset` in chains that packets of this host come through, but lbha's own."""
    try:
        entries: list[dict[str, dict[str, Any]]] = json.loads(output)["nftables"]
    except (ValueError, KeyError):
        raise NotChecked("nft -j says something else than JSON") from None
    listed = [entry["rule"] for entry in entries if "rule" in entry]
    hooks: dict[tuple[str, str, str], str] = {}
    for entry in entries:
        chain = entry.get("chain")
        if chain and chain.get("hook") in HOOKS:
            hooks[chain["family"], chain["table"], chain["name"]] = chain["hook"]
    while reached := _jumps(listed, hooks):
        hooks |= reached
    found = []
    for rule in listed:
        place = rule["family"], rule["table"], rule["chain"]
        if place in hooks and place[:2] != _OURS:
            found.append(_nft_rule(rule, " ".join(place), hooks[place]))
    return found


def _jumps(
    rules: Sequence[dict[str, Any]], hooks: Mapping[tuple[str, str, str], str]
) -> dict[tuple[str, str, str], str]:
    """The chains that known ones jump to and that are not known yet."""
    found = {}
    for rule in rules:
        place = rule["family"], rule["table"], rule["chain"]
        for part in rule["expr"]:
            for verb in ("jump", "goto"):
                if place in hooks and verb in part:
                    target = rule["family"], rule["table"], part[verb]["target"]
                    if target not in hooks:
                        found[target] = hooks[place]
    return found


def _nft_rule(rule: dict[str, Any], where: str, hook: str) -> Rule:
    found: set[str] = set()
    names: set[str] = set()
    narrowed, words = False, []
    for part in rule["expr"]:
        if match := part.get("match"):
            values = [str(value) for value in _values(match["right"])]
            left = " ".join(str(value) for value in _values(match["left"]))
            words.append(f"{left} {match['op']} {','.join(values)}")
            literals = {value for value in values if _LITERAL.fullmatch(value)}
            narrowed |= bool(literals)
            names |= literals if match["op"] == "==" else set()
            if match["op"] in ("==", "in"):
                found |= {what for field, wanted, what in _LOOKS_FOR if left == field and wanted in values}
                if left.startswith("tcp flags") and values == ["rst"]:
                    found.add("reset")
        else:
            words.append(next(iter(part), ""))
            found |= _in_map(part.get("vmap", {}))
    verdicts = {verb for part in rule["expr"] for verb in part} | found
    return Rule(
        where,
        " ".join(words),
        hook,
        "invalid" in found,
        "vrrp" in found,
        "reset" in found,
        bool(verdicts & _DROPS),
        "accept" in verdicts,
        frozenset(names),
        narrowed,
    )


def _in_map(verdicts: dict[str, Any]) -> set[str]:
    """What `ct state vmap { invalid : drop }` looks for and does."""
    data = verdicts.get("data", {})
    pairs = data.get("set", ()) if isinstance(data, dict) else ()
    by_state = verdicts.get("key") == {"ct": {"key": "state"}}
    return {"invalid", "drop"} if by_state and ["invalid", {"drop": None}] in list(pairs) else set()


_LITERAL = re.compile(r"[0-9a-f:]*[.:][0-9a-f.:]+(?:/\d+)?")


def _values(right: Any) -> list[Any]:
    if isinstance(right, list):
        return [value for each in right for value in _values(each)]
    if isinstance(right, dict):
        return [value for each in right.values() for value in _values(each)]
    return [right]


def iptables_rules(output: str, program: str) -> list[Rule]:
    """Those that `iptables-save` has, of the same chains."""
    hooks = {"INPUT": "input", "OUTPUT": "output", "PREROUTING": "prerouting", "POSTROUTING": "postrouting"}
    lines: list[tuple[str, str, list[str]]] = []
    table = ""
    for line in output.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A "):
            words = shlex.split(line)
            lines.append((table, words[1], words[2:]))
    reached: dict[tuple[str, str], str] = {
        (name, chain): hook for chain, hook in hooks.items() for name in _TABLES
    }
    before = -1
    while before != len(reached):
        before = len(reached)
        for name, chain, words in lines:
            target = _after(words, "-j") or _after(words, "-g")
            if (name, chain) in reached and target:
                reached.setdefault((name, target), reached[name, chain])
    found = []
    for name, chain, words in lines:
        if (name, chain) not in reached:
            continue
        verdict = _after(words, "-j")
        states = f"{_after(words, '--ctstate')},{_after(words, '--state')}".split(",")
        flags = words[words.index("--tcp-flags") + 2] if "--tcp-flags" in words[:-2] else ""
        found.append(
            Rule(
                f"{program} {name} {chain}",
                " ".join(words),
                reached[name, chain],
                "INVALID" in states,
                _after(words, "-p") in ("112", "vrrp"),
                flags == "RST",
                verdict in ("DROP", "REJECT"),
                verdict == "ACCEPT",
                frozenset(
                    address.removesuffix("/32").removesuffix("/128")
                    for option in ("-s", "-d")
                    for address in _after(words, option).split(",")
                    if address
                ),
                "-s" in words or "-d" in words,
            )
        )
    return found


_TABLES = ("raw", "mangle", "nat", "filter")


def _after(words: Sequence[str], option: str) -> str:
    """What follows an option; nothing where a ! stands before it."""
    place = words.index(option) if option in words else len(words)
    return words[place + 1] if place + 1 < len(words) and words[place - 1 : place] != ["!"] else ""
