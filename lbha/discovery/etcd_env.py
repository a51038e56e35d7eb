"""etcd-env:FILE: the members named in an etcd member's environment file.

ETCD_INITIAL_CLUSTER holds `NAME=PEER_URL,…`. It says what the cluster was when the member was set up: for
members that come and go at run time there is `etcd-members`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lbha.discovery.endpoints import one_line
from lbha.discovery.hosts import host_and_port, member_endpoint, member_endpoints
from lbha.discovery.source import Query, off_loop, read_file
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint, Service

_MAX_BYTES = 1 << 20

_KEY = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=", re.MULTILINE)
_PIECE = re.compile(
    r"""
    "(?P<double>(?:[^"\\]|\\.)*)"
    | '(?P<single>[^']*)'
    | \\(?P<escaped>.|\Z)
    | (?P<end>[ \t]*(?:\n|;|\Z)|[ \t]+\#)
    | (?P<plain>[^ \t\n"'\\;]+|[ \t]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_DOUBLE_ESCAPE = re.compile(r'\\(["\\$`\n])')


@dataclass(frozen=True, slots=True)
class EtcdEnv:
    """Members of ETCD_INITIAL_CLUSTER at the client port of ETCD_ADVERTISE_CLIENT_URLS."""

    static: ClassVar[bool] = False
    nodes_stand_in: ClassVar[bool] = False

    async def find(self, query: Query) -> Sequence[Endpoint]:
        try:
            data = await off_loop(lambda: read_file(query.argument, _MAX_BYTES))
        except OSError as error:
            raise DiscoveryError(f"cannot be read: {error.strerror or error}") from None
        # A comment in another encoding does no harm; a damaged URL is refused where it is parsed.
        text = data.decode("utf-8-sig", errors="replace")
        return await _members(query.cluster, query.service, parse_env(text))


def parse_env(text: str) -> dict[str, str]:
    """The assignments of a systemd EnvironmentFile or a shell fragment; the last one of a name counts.

    Understands comments, `export`, both kinds of quotes, backslashes, continued lines and CRLF; a value may
    hold blanks, and ends at ` #` or `;`. Expands no `$VARIABLE`. Raises DiscoveryError for an open quote.
    """
    text = text.replace("\r\n", "\n")
    values: dict[str, str] = {}
    position = 0
    while key := _KEY.search(text, position):
        value, position = _value(text, key.end())
        values[key[1]] = value
    return values


def _value(text: str, position: int) -> tuple[str, int]:
    """The value that starts at `position`, and where it ends (at its newline, or right behind a `;`)."""
    pieces: list[str] = []
    while piece := _PIECE.match(text, position):
        kind = piece.lastgroup
        if kind == "end":
            # `^` of the next key must still see this newline.
            return "".join(pieces), piece.end() - piece[0].endswith("\n")
        if kind == "double":
            pieces.append(_DOUBLE_ESCAPE.sub(lambda found: found[1].strip("\n"), piece["double"]))
        elif kind == "escaped":
            pieces.append(piece["escaped"].strip("\n"))
        elif pieces or not piece[0].isspace():
            pieces.append(piece[kind or "plain"])
        position = piece.end()
    line = text.count("\n", 0, position) + 1
    raise DiscoveryError(f"line {line}: a quote is not closed; close it")


async def _members(cluster: Cluster, service: Service, values: dict[str, str]) -> Sequence[Endpoint]:
    """One endpoint a member. Raises DiscoveryError when the file names none, or one that is unusable."""
    peers: dict[str, list[str]] = {}
    for entry in _entries(values.get("ETCD_INITIAL_CLUSTER", "")):
        name, equals, url = entry.partition("=")
        if not equals:
            raise DiscoveryError(f'ETCD_INITIAL_CLUSTER: "{one_line(entry)}" is not NAME=URL')
        peers.setdefault(name.strip(), []).append(host_and_port(url.strip())[0])
    if not peers:
        raise DiscoveryError('no ETCD_INITIAL_CLUSTER in it; add it, or use "etcd-members"')
    advertised = [host_and_port(url) for url in _entries(values.get("ETCD_ADVERTISE_CLIENT_URLS", ""))]
    port, own = advertised[0][1] if advertised else service.target_port, None
    if advertised:
        try:
            own = await member_endpoint(cluster, advertised)
            # Not the first one's: `http://localhost:4001,https://10.0.0.11:2379` says 2379 to the others.
            port = own.port
        except DiscoveryError:
            pass  # `http://localhost:2379` is common: each member at its peer address, then
    local = _local(values.get("ETCD_NAME", ""), peers, [host for host, _ in advertised])

    async def endpoint(name: str) -> Endpoint:
        if own and name == local:
            return own
        return await member_endpoint(cluster, [(host, port) for host in peers[name]])

    return await member_endpoints((name, endpoint(name)) for name in peers)


def _local(name: str, peers: dict[str, list[str]], advertised: list[str]) -> str | None:
    """The member whose file this is: by ETCD_NAME, else by a host that is in both kinds of URL."""
    if name in peers:
        return name
    return next((each for each, hosts in peers.items() if not set(hosts).isdisjoint(advertised)), None)


def _entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]
