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
_IPTABLES_WHOLE = ("-s", "-d", "-i", "-o", "-j", "-g", "--reject-with", "--comment", "--match-set")
_TABLES = ("raw", "mangle", "nat", "filter")
_OURS = ("inet", "lbha")
_DROPS = {"drop", "reject"}
_PROTOCOLS = ("l4proto", "ip protocol", "ip6 nexthdr")
_LOOKS_FOR = (
    ("state", "invalid", "invalid"),
    *((field, number, "vrrp") for field in _PROTOCOLS for number in ("112", "vrrp")),
)
"""An expression of nft (its values, joined), a value in it, and what a rule with both looks for."""

_ANY = "*"
_FAMILIES_4 = ("inet", "ip", "iptables", "iptables-legacy")
_FAMILIES_6 = ("inet", "ip6", "ip6tables", "ip6tables-legacy")
_INTERFACES = ("iifname", "iif", "oifname", "oif")

_ADDRESS = re.compile(r"[0-9a-f:]*[.:][0-9a-f.:]+(?:/\d+)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `chain` is where it stands, `text` for people. `invalid`, `vrrp`, `reset`: what it looks for;
    `drops`, `accepts`, `jump`: its verdict. `names`: the addresses that it is about; `narrowed`: it is about
    some addresses only, those or all but those; `interfaces`: patterns of where it counts, none: everywhere;
    `whole`: it asks for nothing but these, and so is about VRRP too."""

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
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Rules in the order in which they stand, the hook of each chain that has one, and which of those chains
    drop what no rule of theirs decides."""

    rules: tuple[Rule, ...]
    hooks: Mapping[str, str]
    denies: frozenset[str] = frozenset()

    def deaf_chains(self, interface: str, *, six: bool) -> Iterator[str]:
        """The chains that drop what is not let through, where nothing lets VRRP through on that interface."""
        rules = [rule for rule in self.rules if _counts(rule, interface)]
        for chain in self.hooks:
            if chain.split(" ")[0] not in (_FAMILIES_6 if six else _FAMILIES_4):
                continue
            denies = chain in self.denies or any(_drops_all(rule) for rule in rules if rule.chain == chain)
            passed = _reached({chain}, rules)
            if denies and not any(rule.accepts and rule.whole for rule in rules if rule.chain in passed):
                yield chain

    def on_our_way(self, interface: str) -> Iterator[tuple[str, Rule]]:
        """Hook and rule, of those that packets to or from this host on that interface come by."""
        rules = [rule for rule in self.rules if _counts(rule, interface)]
        reached = {
            each: hook for chain, hook in reversed([*self.hooks.items()]) for each in _reached({chain}, rules)
        }
        return ((reached[rule.chain], rule) for rule in rules if rule.chain in reached)


def _reached(chains: set[str], rules: Sequence[Rule]) -> set[str]:
    """These chains, and all to which they jump; by a map, to any of their table."""
    found = set(chains)
    before = -1
    while before != len(found):
        before = len(found)
        for rule in rules:
            if rule.jump and rule.chain in found:
                table = rule.jump.removesuffix(_ANY)
                found |= (
                    {each.chain for each in rules if each.chain.startswith(table)}
                    if table != rule.jump
                    else {rule.jump}
                )
    return found


def _drops_all(rule: Rule) -> bool:
    return rule.drops and rule.whole and not (rule.vrrp or rule.narrowed or rule.interfaces)


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
        {_chain(chain): chain["hook"] for chain in chains},
        frozenset(_chain(chain) for chain in chains if chain.get("policy") == "drop"),
    )


def _chain(chain: dict[str, Any]) -> str:
    return f"{chain['family']} {chain['table']} {chain['name']}"


def _nft_rule(rule: dict[str, Any]) -> Rule:
    table = f"{rule['family']} {rule['table']}"
    found: set[str] = set()
    names: set[str] = set()
    interfaces: set[str] = set()
    narrowed, whole, jump, words = False, True, "", []
    for part in rule["expr"]:
        for verb in ("jump", "goto"):
            jump = f"{table} {part[verb]['target']}" if verb in part else jump
        match = part.get("match")
        if match is None:
            words.append(next(iter(part), ""))
            found |= _in_map(part.get("vmap", {}))
            whole &= not {"vmap", "xt"} & part.keys()
            jump = f"{table} {_ANY}" if _jumps(part.get("vmap")) else jump
            continue
        values = [str(value) for value in _values(match["right"])]
        left = " ".join(str(value) for value in _values(match["left"]))
        words.append(f"{left} {match['op']} {','.join(values)}")
        addresses = {value for value in values if _ADDRESS.fullmatch(value)}
        narrowed |= bool(addresses)
        sought: set[str] = set()
        if match["op"] in ("==", "in"):
            names |= addresses
            interfaces |= set(values) if left in _INTERFACES else set()
            sought = {what for field, wanted, what in _LOOKS_FOR if left == field and wanted in values}
            found |= sought
            found |= {"reset"} if left.startswith("tcp flags") and values == ["rst"] else set()
        whole &= "vrrp" in sought or left in _INTERFACES or left.endswith("addr")
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
        whole=whole,
    )


def _in_map(verdicts: dict[str, Any]) -> set[str]:
    """What `ct state vmap { invalid : drop }` looks for and does."""
    data = verdicts.get("data", {})
    pairs = data.get("set", ()) if isinstance(data, dict) else ()
    by_state = verdicts.get("key") == {"ct": {"key": "state"}}
    return {"invalid", "drop"} if by_state and ["invalid", {"drop": None}] in list(pairs) else set()


def _jumps(tree: Any) -> bool:
    """Whether a verdict in there leads to another chain."""
    if isinstance(tree, dict):
        return bool({"jump", "goto"} & tree.keys()) or any(_jumps(each) for each in tree.values())
    # Of a named map the verdicts stand elsewhere.
    return any(_jumps(each) for each in tree) if isinstance(tree, list) else str(tree).startswith("@")


def _values(tree: Any) -> list[Any]:
    if isinstance(tree, list):
        return [value for each in tree for value in _values(each)]
    if isinstance(tree, dict):
        return [value for each in tree.values() for value in _values(each)]
    return [tree]


def iptables_rules(output: str, program: str) -> Ruleset:
    """All that `iptables-save` has; `program` names it."""
    rules = []
    denies: set[str] = set()
    table = ""
    for line in output.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and line.split(" ")[1:2] == ["DROP"]:
            denies.add(f"{program} {table} {line[1:].split(' ')[0]}")
        elif line.startswith("-A "):
            rules.append(_iptables_rule(f"{program} {table}", shlex.split(line)))
    hooks = {f"{program} {table} {name}": hook for table in _TABLES for name, hook in _IPTABLES_HOOKS.items()}
    return Ruleset(tuple(rules), hooks, frozenset(denies))


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
        whole=_iptables_whole([word for word in words[2:] if word != "!"]),
    )


def _iptables_whole(words: list[str]) -> bool:
    """Whether addresses, interfaces and VRRP are all that a rule asks for."""
    while words:
        option, value = words[0], words[1] if len(words) > 1 else ""
        known = {"-m": value in ("comment", "set"), "-p": value in ("112", "vrrp")}
        if not known.get(option, option in _IPTABLES_WHOLE):
            return False
        words = words[3 if option == "--match-set" else 2 :]
    return True


def _after(words: Sequence[str], option: str) -> str:
    """What follows an option; nothing where a ! stands before it."""
    place = words.index(option) if option in words else len(words)
    return words[place + 1] if place + 1 < len(words) and words[place - 1 : place] != ["!"] else ""
