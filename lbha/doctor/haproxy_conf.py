"""haproxy.cfg as facts, whoever wrote it. Pure. Conditions (.if) and `from` other defaults are not followed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_SECTIONS = frozenset(
    (
        *("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "cache"),
        *("mailers", "program", "ring", "log-forward", "http-errors", "fcgi-app"),
    )
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)?")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1e-3}

Line = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """A `server` line; `options` are its words and those of `default-server`, its own first."""

    name: str
    host: str
    port: int | None
    options: Line

    def has(self, word: str) -> bool:
        """Whether the option is there."""
        return word in self.options

    def value(self, name: str) -> str | None:
        """The word after an option."""
        place = self.options.index(name) + 1 if name in self.options else len(self.options)
        return self.options[place] if place < len(self.options) else None

    def time(self, name: str, default: float) -> float:
        """A time in seconds."""
        return seconds(self.value(name) or "") or default

    def number(self, name: str, default: int) -> int:
        """A whole number."""
        found = self.value(name) or ""
        return int(found) if found.isdigit() else default


@dataclass(frozen=True, slots=True)
class Proxy:
    """A frontend, backend or listen section, with the lines of the `defaults` before it. `fallback`: traffic
    comes only when another pool has no live server (`use_backend … if { nbsrv(…) … }`). `fronts`: the frontends
    that name a backend."""

    kind: str
    name: str
    lines: tuple[Line, ...]
    servers: tuple[Server, ...]
    fallback: bool = False
    fronts: tuple[Proxy, ...] = ()

    def find(self, *words: str) -> Line | None:
        """The last line that begins with these words: a proxy's own comes after the defaults'."""
        found = [line for line in self.lines if line[: len(words)] == words]
        return found[-1] if found else None

    def option(self, name: str) -> bool:
        """Whether `option NAME` is on."""
        on, off = self.find("option", name), self.find("no", "option", name)
        return on is not None and (off is None or self.lines.index(on) > self.lines.index(off))

    def timeout(self, name: str) -> float | None:
        """`timeout NAME` in seconds; None where there is none, which 0 means too."""
        line = self.find("timeout", name)
        return seconds(line[2]) or None if line and len(line) > 2 else None

    def client_timeout(self) -> float | None:
        """The shortest `timeout client` of those that lead here, whose matter it is."""
        found = [front.timeout("client") for front in self.fronts or (self,)]
        return min((value for value in found if value is not None), default=None)

    @property
    def mode(self) -> str:
        """tcp, haproxy's default, or http."""
        line = self.find("mode")
        return line[1] if line and len(line) > 1 else "tcp"


@dataclass(frozen=True, slots=True)
class HaproxyCfg:
    """One file."""

    path: str
    globals: tuple[Line, ...]
    proxies: tuple[Proxy, ...]

    def with_servers(self) -> tuple[Proxy, ...]:
        """Those that carry traffic to a server."""
        return tuple(proxy for proxy in self.proxies if proxy.servers)

    def binds(self) -> tuple[tuple[str, int], ...]:
        """Every address and port that is listened at; "" for every address."""
        found = []
        for proxy in self.proxies:
            for line in proxy.lines:
                if line[0] == "bind" and len(line) > 1:
                    for part in line[1].split(","):
                        address, _, port = part.rpartition(":")
                        if port.isdigit():
                            address = address.removeprefix("ipv4@").removeprefix("ipv6@")
                            everywhere = address in ("", "*", "0.0.0.0", "::", "[::]", ":")
                            found.append(("" if everywhere else address.strip("[]"), int(port)))
        return tuple(found)


def parse(path: str, text: str) -> HaproxyCfg:
    """Every line is taken for what it says; what haproxy would refuse is left to `haproxy -c`."""
    sections: list[tuple[str, str, list[Line]]] = []
    for raw in text.splitlines():
        words = _words(raw)
        if not words:
            continue
        if words[0] in _SECTIONS:
            sections.append((words[0], words[1] if len(words) > 1 else "", []))
        elif sections:
            sections[-1][2].append(words)
    fallbacks = {
        line[1]
        for _, _, lines in sections
        for line in lines
        if line[0] == "use_backend" and any(word.startswith("nbsrv(") for word in line)
    }
    proxies: list[Proxy] = []
    defaults: tuple[Line, ...] = ()
    global_lines: tuple[Line, ...] = ()
    for kind, name, lines in sections:
        if kind == "global":
            global_lines = (*global_lines, *lines)
        elif kind == "defaults":
            defaults = tuple(lines)
        elif kind in ("frontend", "backend", "listen"):
            both = (*defaults, *lines)
            proxies.append(Proxy(kind, name, both, _servers(both), name in fallbacks))
    return HaproxyCfg(
        path, global_lines, tuple(replace(each, fronts=_fronts(each, proxies)) for each in proxies)
    )


def seconds(text: str) -> float | None:
    """A time as haproxy writes it: `35s`, `500` (ms); None for anything else."""
    found = _TIME.fullmatch(text)
    return float(found.group(1)) * _UNITS[found.group(2)] if found else None


def _fronts(backend: Proxy, proxies: Sequence[Proxy]) -> tuple[Proxy, ...]:
    if backend.kind != "backend":
        return ()
    leads = (("default_backend", backend.name), ("use_backend", backend.name))
    return tuple(each for each in proxies if any(line[:2] in leads for line in each.lines))


def _servers(lines: Sequence[Line]) -> tuple[Server, ...]:
    common: Line = ()
    found = []
    for line in lines:
        if line[0] == "default-server":
            common = (*line[1:], *common)
            continue
        if line[0] == "server-template" and len(line) > 3:
            line = ("server", line[1], *line[3:])
        if line[0] == "server" and len(line) > 2:
            host, _, port = line[2].rpartition(":")
            if not port.isdigit():
                host, port = line[2], ""
            found.append(Server(line[1], host.strip("[]"), int(port) if port else None, (*line[3:], *common)))
    return tuple(found)


def _words(line: str) -> Line:
    words: list[str] = []
    for word in re.findall(r"\"[^\"]*\"|'[^']*'|\\.|[^\s#]\S*|#", line):
        if word.startswith("#"):
            break
        words.append(word.strip("\"'"))
    return tuple(words)
