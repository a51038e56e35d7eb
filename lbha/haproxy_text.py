"""What apply needs to know of a haproxy.cfg before haproxy reads it. Pure.

Only literal addresses are understood: lbha renders nothing else. What an operator's own template writes in
another way is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from lbha.model import Endpoint

EMPTY_STATE = "1\n"
"""A state file that says nothing. haproxy warns about a missing one, and about an empty one."""

SLOT = "_slot"
"""How the name of a prepared spare server begins (`lbha.live`): no node's name and no address can."""

_SECTIONS = frozenset(
    (
        *("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "cache"),
        *("mailers", "program", "ring", "log-forward", "http-errors", "fcgi-app"),
    )
)
"""Words that begin a section (configuration.txt): `server` means other things in some of them."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A TCP address that a frontend listens on. `transparent`: it need not be on this host."""

    endpoint: Endpoint
    transparent: bool


def binds(text: str) -> tuple[Bind, ...]:
    """The listeners whose binding can be tried; none where an option changes how haproxy binds."""
    found: list[Bind] = []
    for words in _lines(text):
        if words[0] == "noreuseport":
            return ()
        if words[0] != "bind" or {"interface", "namespace"} & set(words):
            continue
        found += [
            Bind(endpoint, "transparent" in words[2:])
            for part in words[1].split(",")
            if (endpoint := endpoint_of(part)) is not None
        ]
    return tuple(found)


def needed_directories(text: str) -> tuple[tuple[str, str], ...]:
    """Directories that must exist, each with the line that needs it: of admin sockets, and of `chroot`."""
    found: list[tuple[str, str]] = []
    for words in _lines(text):
        if words[:2] == ["stats", "socket"] and words[2:] and words[2].startswith("/"):
            found.append((words[2].rpartition("/")[0] or "/", " ".join(words[:3])))
        elif words[0] == "chroot" and words[1:]:
            found.append((words[1], " ".join(words[:2])))
    return tuple(found)


def servers(text: str) -> dict[tuple[str, str], Endpoint]:
    """(backend, server) -> where it is."""
    found: dict[tuple[str, str], Endpoint] = {}
    section = ""
    for words in _lines(text):
        if words[0] in ("backend", "listen") and words[1:]:
            section = words[1]
        elif words[0] == "server" and words[2:] and (endpoint := endpoint_of(words[2])) is not None:
            found[section, words[1]] = endpoint
    return found


def pools(text: str) -> dict[str, dict[str, Endpoint]]:
    """backend -> server -> where it is, of the backends whose servers can be changed while haproxy runs.

    A server line that says more than a name and a literal address is part of the structure: an operator's own
    template may say anything there, and a backend with such a line, or with a `server-template` that is
    not ours, is left to reloads.
    """
    found: dict[str, dict[str, Endpoint]] = {}
    fixed: set[str] = set()
    section = ""
    for words in _lines(text):
        if words[0] in _SECTIONS:
            section = words[1] if words[0] in ("backend", "listen") and words[1:] else ""
        elif words[0] == "server-template" and words[1:2] != [SLOT]:
            fixed.add(section)
        elif words[0] == "server" and section:
            endpoint = _plain(words)
            if endpoint is None:
                fixed.add(section)
            else:
                found.setdefault(section, {})[words[1]] = endpoint
    return {backend: pool for backend, pool in found.items() if backend not in fixed}


def structure(text: str) -> str:
    """All of it but the servers that can be changed while haproxy runs."""
    return "\n".join(line for line in text.splitlines() if _plain(line.split()) is None)


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words


def _plain(words: list[str]) -> Endpoint | None:
    """Where a server is whose line says nothing else: `server NAME ADDRESS:PORT`, as haproxy shows it."""
    found = endpoint_of(words[2]) if len(words) == 3 and words[0] == "server" else None
    try:
        return found and Endpoint(str(ip_address(found.address)), found.port)
    except ValueError:
        return None


def endpoint_of(word: str) -> Endpoint | None:
    """`10.0.0.11:2379` or `[fd00::11]:2379` as haproxy writes them; None for anything else."""
    for family in ("ipv4@", "ipv6@"):
        word = word.removeprefix(family)
    address, _, port = word.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536 or any(sign in address for sign in "@/\"'$"):
        return None
    return Endpoint("0.0.0.0" if address in ("", "*") else address.strip("[]"), int(port))
