"""keepalived.conf as facts, whoever wrote it. Pure. Includes, variables and conditions are not followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite

MOST_WORDS = 100_000
"""A file with more is no keepalived.conf."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One line, and what stands in its braces."""

    words: tuple[str, ...]
    block: tuple[Statement, ...] = ()

    def first(self, name: str) -> Statement | None:
        """The first statement of that name in the block."""
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[Statement]:
        """Every statement of that name in the block."""
        return (each for each in self.block if each.words[:1] == (name,))

    def value(self, name: str, default: str) -> str:
        """The first word after that name in the block."""
        found = self.first(name)
        return found.words[1] if found and len(found.words) > 1 else default

    def number(self, name: str, default: float) -> float:
        """The same as a number; the default where it is none."""
        try:
            found = float(self.value(name, str(default)))
        except ValueError:
            return default
        return found if isfinite(found) else default


@dataclass(frozen=True, slots=True)
class Script:
    """A `vrrp_script`; times in seconds, with keepalived's defaults. `timeout` None: not written."""

    name: str
    command: str
    interval: float
    timeout: float | None
    weight: int
    fall: int

    @property
    def detection(self) -> float:
        """Seconds until it has failed `fall` times, when each run ends at once."""
        return self.interval * self.fall


@dataclass(frozen=True, slots=True)
class Instance:
    """A `vrrp_instance`, with keepalived's defaults. `scripts`: those that it tracks, with the weights that
    count in it. `track_files`: files, which may say anything, count as well."""

    name: str
    version: int
    state: str
    router: int
    priority: int
    advert: float
    adverts: int
    nopreempt: bool
    auth_pass: str | None
    source: str | None
    peers: tuple[str, ...]
    vips: tuple[str, ...]
    scripts: tuple[Script, ...] = ()
    track_files: bool = False

    @property
    def down_time(self) -> float:
        """Seconds of silence after which a backup of this priority takes over (RFC 9568, 6.1)."""
        return self.adverts * self.advert + (256 - self.priority) / 256 * self.advert

    @property
    def lowest(self) -> int:
        """The priority when every script with a negative weight fails, and none with a positive one is good."""
        return self.priority + sum(script.weight for script in self.scripts if script.weight < 0)

    @property
    def highest(self) -> int:
        """The priority when all its scripts are good."""
        return self.priority + sum(script.weight for script in self.scripts if script.weight > 0)


@dataclass(frozen=True, slots=True)
class KeepalivedConf:
    """One file."""

    path: str
    instances: tuple[Instance, ...]
    scripts: tuple[Script, ...]
    script_user: bool
    script_security: bool


def parse(path: str, text: str) -> KeepalivedConf:
    """ValueError when its braces do not match."""
    top = Statement((), _tree(text))
    defaults = top.first("global_defs") or Statement(())
    scripts = {each.words[1]: _script(each) for each in top.all("vrrp_script") if len(each.words) > 1}
    instances = tuple(_instance(each, scripts, defaults) for each in top.all("vrrp_instance"))
    users = all(each.first("user") for each in top.all("vrrp_script"))
    return KeepalivedConf(
        path,
        instances,
        tuple(scripts.values()),
        script_user=defaults.first("script_user") is not None or users,
        script_security=defaults.first("enable_script_security") is not None,
    )


def _script(block: Statement) -> Script:
    found = block.first("script")
    written = block.first("timeout")
    return Script(
        name=block.words[1],
        command=" ".join(found.words[1:]) if found else "",
        interval=block.number("interval", 1),
        timeout=block.number("timeout", 0) if written else None,
        weight=int(block.number("weight", 0)),
        fall=int(block.number("fall", 1)),
    )


def _instance(block: Statement, scripts: dict[str, Script], defaults: Statement) -> Instance:
    tracked = []
    for each in (block.first("track_script") or Statement(())).block:
        if (script := scripts.get(each.words[0])) is not None:
            weight = each.words[2] if each.words[1:2] == ("weight",) and len(each.words) > 2 else ""
            tracked.append(replace(script, weight=int(weight)) if weight.lstrip("+-").isdigit() else script)
    peers = tuple(each.words[0] for each in (block.first("unicast_peer") or Statement(())).block)
    vips = tuple(each.words[0] for each in (block.first("virtual_ipaddress") or Statement(())).block)
    authentication = block.first("authentication")
    six = any(":" in vip for vip in vips)
    return Instance(
        name=block.words[1] if len(block.words) > 1 else "",
        # Version 2 knows no IPv6: keepalived takes 3 for it.
        version=3 if six else int(block.number("version", defaults.number("vrrp_version", 2))),
        state=block.value("state", "BACKUP"),
        router=int(block.number("virtual_router_id", 0)),
        priority=int(block.number("priority", 100)),
        advert=block.number("advert_int", 1),
        adverts=int(block.number("down_timer_adverts", defaults.number("vrrp_down_timer_adverts", 3))),
        nopreempt=block.first("nopreempt") is not None,
        auth_pass=authentication.value("auth_pass", "") if authentication else None,
        source=block.value("unicast_src_ip", "") or None,
        peers=peers,
        vips=vips,
        scripts=tuple(tracked),
        track_files=block.first("track_file") is not None,
    )


def _tree(text: str) -> tuple[Statement, ...]:
    stack: list[list[Statement]] = [[]]
    heads: list[tuple[str, ...]] = []
    words: list[str] = []

    def end_line() -> None:
        if words:
            stack[-1].append(Statement(tuple(words)))
            words.clear()

    for count, word in enumerate(_words(text)):
        if count > MOST_WORDS:
            raise ValueError("too long for a keepalived.conf")
        if word == "\n":
            end_line()
        elif word == "{":
            if not words and stack[-1]:
                words[:] = stack[-1].pop().words  # the brace stands on a line of its own
            heads.append(tuple(words))
            words.clear()
            stack.append([])
        elif word == "}":
            end_line()
            if not heads:
                raise ValueError("a } too many")
            block = tuple(stack.pop())
            stack[-1].append(Statement(heads.pop(), block))
        else:
            words.append(word)
    end_line()
    if heads:
        raise ValueError(f"the block of {' '.join(heads[-1])} does not end")
    return tuple(stack[0])


def _words(text: str) -> Iterator[str]:
    """Words, braces and line ends; a quoted text is one word."""
    for line in text.splitlines():
        word, quote = "", ""
        for sign in line:
            if quote:
                if sign == quote:
                    yield word
                    word, quote = "", ""
                else:
                    word += sign
            elif sign in "\"'" and not word:
                quote = sign
            elif sign in "!#" and not word:
                break
            elif sign.isspace() or sign in "{}":
                if word:
                    yield word
                    word = ""
                if sign in "{}":
                    yield sign
            else:
                word += sign
        if word:
            yield word
        yield "\n"
