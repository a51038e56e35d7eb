"""nftables' and iptables' rules as facts, and which of them packets of this host come by. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lbha.doctor.model import NotChecked

HOOKS = ("prerouting", "input", "output", "postrouting")
"""Where packets of this host itself pass. FORWARD, where kube-proxy drops INVALID ones, is others' way."""

_IPTABLES_HOOKS = {hook.upper(): hook for hook in HOOKS}
_TABLES = ("raw", "mangle", "nat", "filter")
_OURS = ("inet", "lbha")
_DROPS = {"drop", "reject"}
_PROTOCOLS = ("l4proto", "ip protocol", "ip6 nexthdr")
_LOOKS_FOR = (
    ("state", "invalid", "invalid"),
    *((field, number, "vrrp") for field in _PROTOCOLS for number in ("112", "vrrp")),
)
"""An expression of nft (its values, joined), a value in it, and what a rule with both looks for."""

_ADDRESS = re.compile(r"[0-9a-f:]*[.:][0-9a-f.:]+(?:/\d+)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `chain` is where it stands, `text` for people. `invalid`, `vrrp`, `reset`: what it looks for;
    `drops`, `accepts`, `jump`: its verdict. `names`: the addresses that it is about; `narrowed`: it is about
    some addresses only, those or all but those; `interfaces`: patterns of where it counts, none: everywhere."""

    chain: str
    text: str
    invalid: bool = False
    vrrp: bool = False
    reset: bool = False
    drops: bool = False
    accepts: bool = False
    jump: str = ""
    names: frozenset[str] = frozenset()
    narrowed: bool = False
    interfaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Rules in the order in which they stand, and the hook of each chain that has one."""

    rules: tuple[Rule, ...]
    hooks: Mapping[str, str]

    def on_our_way(self, interface: str) -> Iterator[tuple[str, Rule]]:
        """Hook and rule, of those that packets to or from this host on that interface come by."""
        rules = [rule for rule in self.rules if _counts(rule, interface)]
        reached = dict(self.hooks)
        before = -1
        while before != len(reached):
            before = len(reached)
            for rule in rules:
                if rule.jump and rule.chain in reached:
                    reached.setdefault(rule.jump, reached[rule.chain])
        return ((reached[rule.chain], rule) for rule in rules if rule.chain in reached)


def _counts(rule: Rule, interface: str) -> bool:
    return not rule.interfaces or any(fnmatchcase(interface, pattern) for pattern in rule.interfaces)


def nft_rules(output: str) -> Ruleset:
    """All that `nft -j list ruleset` has, but lbha's own. NotChecked when it makes no sense."""
    try:
        entries: list[dict[str, dict[str, Any]]] = json.loads(output)["nftables"]
    except (ValueError, KeyError):
        raise NotChecked("nft -j says something else than JSON") from None
    chains = [entry["chain"] for entry in entries if entry.get("chain", {}).get("hook") in HOOKS]
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    return Ruleset(
        tuple(_nft_rule(rule) for rule in rules if (rule["family"], rule["table"]) != _OURS),
        {f"{chain['family']} {chain['table']} {chain['name']}": chain["hook"] for chain in chains},
    )


def _nft_rule(rule: dict[str, Any]) -> Rule:
    table = f"{rule['family']} {rule['table']}"
    found: set[str] = set()
    names: set[str] = set()
    interfaces: set[str] = set()
    narrowed, jump, words = False, "", []
    for part in rule["expr"]:
        for verb in ("jump", "goto"):
            jump = f"{table} {part[verb]['target']}" if verb in part else jump
        match = part.get("match")
        if match is None:
            words.append(next(iter(part), ""))
            found |= _in_map(part.get("vmap", {}))
            continue
        values = [str(value) for value in _values(match["right"])]
        left = " ".join(str(value) for value in _values(match["left"]))
        words.append(f"{left} {match['op']} {','.join(values)}")
        addresses = {value for value in values if _ADDRESS.fullmatch(value)}
        narrowed |= bool(addresses)
        if match["op"] in ("==", "in"):
            names |= addresses
            interfaces |= set(values) if left in ("iifname", "iif", "oifname", "oif") else set()
            found |= {what for field, wanted, what in _LOOKS_FOR if left == field and wanted in values}
            found |= {"reset"} if left.startswith("tcp flags") and values == ["rst"] else set()
    verdicts = {verb for part in rule["expr"] for verb in part} | found
    return Rule(
        chain=f"{table} {rule['chain']}",
        text=" ".join(words),
        invalid="invalid" in found,
        vrrp="vrrp" in found,
        reset="reset" in found,
        drops=bool(verdicts & _DROPS),
        accepts="accept" in verdicts,
        jump=jump,
        names=frozenset(names),
        narrowed=narrowed,
        interfaces=frozenset(interfaces),
    )


def _in_map(verdicts: dict[str, Any]) -> set[str]:
    """What `ct state vmap { invalid : drop }` looks for and does."""
    data = verdicts.get("data", {})
    pairs = data.get("set", ()) if isinstance(data, dict) else ()
    by_state = verdicts.get("key") == {"ct": {"key": "state"}}
    return {"invalid", "drop"} if by_state and ["invalid", {"drop": None}] in list(pairs) else set()


def _values(tree: Any) -> list[Any]:
    if isinstance(tree, list):
        return [value for each in tree for value in _values(each)]
    if isinstance(tree, dict):
        return [value for each in tree.values() for value in _values(each)]
    return [tree]


def iptables_rules(output: str, program: str) -> Ruleset:
    """All that `iptables-save` has; `program` names it."""
    rules = []
    table = ""
    for line in output.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A "):
            rules.append(_iptables_rule(f"{program} {table}", shlex.split(line)))
    hooks = {f"{program} {table} {name}": hook for table in _TABLES for name, hook in _IPTABLES_HOOKS.items()}
    return Ruleset(tuple(rules), hooks)


def _iptables_rule(table: str, words: list[str]) -> Rule:
    verdict = _after(words, "-j") or _after(words, "-g")
    states = f"{_after(words, '--ctstate')},{_after(words, '--state')}".split(",")
    flags = words[words.index("--tcp-flags") + 2] if "--tcp-flags" in words[:-2] else ""
    addresses = {_after(words, option) for option in ("-s", "-d")} - {""}
    interfaces = {_after(words, option).replace("+", "*") for option in ("-i", "-o")} - {""}
    return Rule(
        chain=f"{table} {words[1]}",
        text=" ".join(words[2:]),
        invalid="INVALID" in states,
        vrrp=_after(words, "-p") in ("112", "vrrp"),
        reset=flags == "RST",
        drops=verdict in ("DROP", "REJECT"),
        accepts=verdict == "ACCEPT",
        jump=f"{table} {verdict}",
        names=frozenset(address.removesuffix("/32").removesuffix("/128") for address in addresses),
        narrowed="-s" in words or "-d" in words,
        interfaces=frozenset(interfaces),
    )


def _after(words: Sequence[str], option: str) -> str:
    """What follows an option; nothing where a ! stands before it."""
    place = words.index(option) if option in words else len(words)
    return words[place + 1] if place + 1 < len(words) and words[place - 1 : place] != ["!"] else ""
