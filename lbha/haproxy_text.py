"""What apply needs to know of a haproxy.cfg before haproxy reads it. Pure.

Only literal addresses are understood: lbha renders nothing else. What an operator's own template writes in
another way is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lbha.model import Endpoint

EMPTY_STATE = "1\n"
"""A state file that says nothing. haproxy warns about a missing one, and about an empty one."""

_ADDRESS, _PORT = 4, 18
"""Columns of `show servers state` (management.txt, 9.3)."""


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


def state_for(text: str, state: str) -> str:
    """The part of `show servers state` that still holds for the configuration `text`.

    haproxy takes a server's address and port from the state file, not from the configuration (measured on
    2.6.12): a server that moved keeps its old port. Such servers are left out, and start as new ones.
    """
    wanted = servers(text)
    kept: list[str] = []
    for line in state.splitlines():
        words = line.split()
        if line.startswith("#") or len(words) == 1:
            kept.append(line)
        elif len(words) > _PORT and words[_PORT].isdigit():
            now = wanted.get((words[1], words[3]))
            if now is not None and now == Endpoint(words[_ADDRESS], int(words[_PORT])):
                kept.append(line)
    # haproxy refuses a state file without a final newline.
    return "\n".join(kept) + "\n" if kept else EMPTY_STATE


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words


def endpoint_of(word: str) -> Endpoint | None:
    """`10.0.0.11:2379` or `[fd00::11]:2379` as haproxy writes them; None for anything else."""
    for family in ("ipv4@", "ipv6@"):
        word = word.removeprefix(family)
    address, _, port = word.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536 or any(sign in address for sign in "@/\"'$"):
        return None
    return Endpoint("0.0.0.0" if address in ("", "*") else address.strip("[]"), int(port))
