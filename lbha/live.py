"""haproxy's servers as they run, as a file wants them, and the commands that lead from one to the other. Pure.

haproxy (2.6.12) lets a server's address, port and state be set while it runs; `add server` inherits nothing
and `del server` crashed it under load (measured). So each pool has spare servers, *slots*: in MAINT, where
nobody counts or checks them, until they carry an address. What carries an address is told by the address,
not by the name: a slot keeps its own name until a reload gives the server its real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lbha import haproxy_text
from lbha.haproxy_text import EMPTY_STATE, SLOT
from lbha.model import Endpoint

SLOTS = 8
"""Slots in a pool. One that cannot be found free costs a reload, which makes all of them free again."""

FMAINT, CMAINT, FDRAIN = 0x01, 0x04, 0x08
"""Bits of `srv_admin_state` (management.txt, 9.3): told to be in MAINT or DRAIN; CMAINT only says what the
configuration said."""

Overrides = Mapping[str, str]
"""SERVICE/SERVER -> "drain" or "maint": what an operator wants a server to be."""

OVERRIDE_BITS = {"drain": FDRAIN, "maint": FMAINT}

_BACKEND, _NAME, _ADDRESS, _OPERATION, _ADMIN, _WEIGHT, _INITIAL_WEIGHT, _SINCE, _PORT = (
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    18,
)
"""Columns of `show servers state` (management.txt, 9.3)."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a running haproxy. `up`: its checks pass. `since`: seconds since that or `admin` changed.

    `weighted`: with the weight that its file gives it.
    """

    backend: str
    name: str
    endpoint: Endpoint
    up: bool
    admin: int
    since: int = 0
    weighted: bool = True

    @property
    def serves(self) -> bool:
        """Whether new connections may go to it."""
        return self.up and not self.admin & ~CMAINT

    @property
    def parked(self) -> bool:
        """In MAINT: no checks, no connections."""
        return bool(self.admin & FMAINT)

    @property
    def draining(self) -> bool:
        """Keeps its connections and gets no new ones."""
        return bool(self.admin & FDRAIN) and not self.parked

    @property
    def slot(self) -> bool:
        """A prepared one."""
        return self.name.startswith(SLOT)


@dataclass(frozen=True, slots=True)
class Command:
    """One word to haproxy about one server: `addr A port P`, `state S`, `health down`, `weight 100%`."""

    backend: str
    name: str
    word: str

    def __str__(self) -> str:
        return f"set server {self.backend}/{self.name} {self.word}"

    def accepted(self, reply: str) -> bool:
        """haproxy is silent about all that it accepts but an address (measured on 2.6.12)."""
        said = reply.strip()
        if self.word.startswith("addr "):
            return said.startswith(("IP changed from", "no need to change the addr"))
        return not said


def parse(state: str) -> tuple[Server, ...]:
    """`show servers state`, in haproxy's order. Servers without an address of their own are left out."""
    return tuple(server for _, server in _rows(state))


def running_name(text: str, actual: Sequence[Server], backend: str, name: str) -> Server | None:
    """The server that carries what `text` calls BACKEND/NAME; None when none does."""
    pool = haproxy_text.pools(text).get(backend)
    return _carriers(pool, _of(backend, actual)).get(name) if pool else None


def commands(text: str, actual: Sequence[Server], overrides: Overrides) -> list[Command] | None:
    """What to say now so that haproxy serves as `text` wants; [] when it does, None when only a reload helps.

    haproxy runs the structure of `text`: only servers differ. A server that is not wanted drains as soon as a
    wanted one serves, never before: a pool is not emptied. Until then it is no difference.
    """
    found: list[Command] = []
    for backend, pool in haproxy_text.pools(text).items():
        servers = _of(backend, actual)
        carriers = _carriers(pool, servers)
        held = {each.name for each in carriers.values()}
        free = [each for each in servers if each.slot and each.parked and each.name not in held]
        serving = False
        for name, endpoint in pool.items():
            override = override_of(overrides, backend, name)
            carrier = carriers.get(name)
            if carrier is None:
                if not free:
                    return None
                carrier = free.pop(0)
                found.append(Command(backend, carrier.name, f"addr {endpoint.address} port {endpoint.port}"))
            serving |= carrier.serves and override is None and carrier.endpoint == endpoint
            found += [Command(backend, carrier.name, word) for word in _words(carrier, override)]
        found += [
            Command(backend, each.name, "state drain")
            for each in _leaving(servers, carriers)
            if serving or not each.serves
        ]
    return found


def waiting(text: str, actual: Sequence[Server]) -> bool:
    """Whether a server that is not wanted still gets connections, because no wanted one serves yet."""
    return any(
        _leaving(servers, _carriers(pool, servers))
        for backend, pool in haproxy_text.pools(text).items()
        for servers in [_of(backend, actual)]
    )


def unwanted(text: str, actual: Sequence[Server]) -> tuple[Server, ...]:
    """The servers that drain because `text` does not name them."""
    found: list[Server] = []
    for backend, pool in haproxy_text.pools(text).items():
        servers = _of(backend, actual)
        held = {each.name for each in _carriers(pool, servers).values()}
        found += [each for each in servers if each.draining and each.name not in held]
    return tuple(found)


def state_for(text: str, state: str, overrides: Overrides) -> str:
    """The part of `show servers state` that still holds for the configuration `text`, for its next reload.

    haproxy finds a server in it by its name, so what a slot carries is written under its real name; it takes
    address and port from it, not from the configuration (measured): a server that moved is left out and
    starts as a new one. The operator's drain and maint hold from the new worker's first instant on.
    """
    kept = [line for line in state.splitlines() if line.startswith("#") or len(line.split()) == 1]
    rows = list(_rows(state))
    lines = {(server.backend, server.name): line for line, server in rows}
    actual = {(server.backend, server.name): server for _, server in rows}
    managed = haproxy_text.pools(text)
    for backend, pool in managed.items():
        carriers = _carriers(pool, _of(backend, list(actual.values())))
        for name, carrier in carriers.items():
            override = override_of(overrides, backend, name)
            if override or not carrier.parked:
                words = lines[backend, carrier.name].split()
                words[_NAME], words[_ADMIN] = name, str(OVERRIDE_BITS[override] if override else 0)
                kept.append(" ".join(words))
    for key, endpoint in haproxy_text.servers(text).items():
        if key[0] not in managed and key in actual and actual[key].endpoint == endpoint:
            kept.append(lines[key])
    # haproxy refuses a state file without a final newline.
    return "\n".join(kept) + "\n" if kept else EMPTY_STATE


def override_of(overrides: Overrides, backend: str, name: str) -> str | None:
    """What the operator wants; it holds in both pools of a service."""
    return overrides.get(f"{backend.removesuffix('.open')}/{name}")


def _words(server: Server, override: str | None) -> list[str]:
    """What leads a server that carries a wanted address to where it should be."""
    found = [] if server.weighted else ["weight 100%"]
    if override == "maint":
        return found if server.parked else [*found, "state maint"]
    if override == "drain":
        return found if server.draining else [*found, "state drain"]
    if server.parked:
        # Out of MAINT haproxy takes a server for healthy. In DRAIN that harms nobody, and from there it goes
        # on as down: it serves after its first good check, and is not chosen for an instant before.
        return [*found, "state drain", "health down", "state ready"]
    if server.draining:
        # A slot may have been left here half-way, by an apply that was killed: its health is not proven.
        return [*found, "health down", "state ready"] if server.slot else [*found, "state ready"]
    return found


def _carriers(pool: Mapping[str, Endpoint], servers: Sequence[Server]) -> dict[str, Server]:
    """The wanted names, and which server carries each: the one that serves, else the least far from it."""
    by_endpoint: dict[Endpoint, list[Server]] = {}
    for each in servers:
        by_endpoint.setdefault(each.endpoint, []).append(each)
    return {
        name: min(
            by_endpoint[endpoint],
            key=lambda each: (not each.serves, each.parked, each.draining, each.name != name, each.slot),
        )
        for name, endpoint in pool.items()
        if endpoint in by_endpoint
    }


def _of(backend: str, actual: Sequence[Server]) -> list[Server]:
    return [each for each in actual if each.backend == backend]


def _leaving(servers: Sequence[Server], carriers: Mapping[str, Server]) -> list[Server]:
    """The servers that nobody wants and that may still get connections."""
    held = {each.name for each in carriers.values()}
    return [each for each in servers if each.name not in held and not each.parked and not each.draining]


def _rows(state: str) -> Iterator[tuple[str, Server]]:
    for line in state.splitlines():
        words = line.split()
        if line.startswith("#") or len(words) <= _PORT:
            continue
        numbers = [words[column] for column in (_OPERATION, _ADMIN, _SINCE, _PORT)]
        if all(number.isdecimal() for number in numbers):
            operation, admin, since, port = map(int, numbers)
            endpoint = Endpoint(words[_ADDRESS], port)
            weighted = words[_WEIGHT] == words[_INITIAL_WEIGHT]
            yield (
                line,
                Server(words[_BACKEND], words[_NAME], endpoint, operation > 0, admin, since, weighted),
            )
