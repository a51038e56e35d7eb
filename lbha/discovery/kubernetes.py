"""kubernetes: the endpoints of the `kubernetes` service, in which every apiserver enters itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from lbha.discovery.endpoints import endpoint, one_line
from lbha.discovery.peers import Request, first_good, tls_context, unverified_context
from lbha.discovery.source import Query, off_loop, read_file
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint

_MAX_TOKEN = 64 << 10


class _Address(msgspec.Struct):
    ip: str


class _Port(msgspec.Struct):
    port: int
    name: str = ""
    protocol: str = "TCP"


class _Subset(msgspec.Struct):
    """`notReadyAddresses` stands beside `addresses` and is left unread."""

    addresses: list[_Address] | None = None
    ports: list[_Port] | None = None


class _Endpoints(msgspec.Struct, tag_field="kind", tag="Endpoints"):
    subsets: list[_Subset] | None = None


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Ready apiservers as the API itself lists them. Authenticates by token or by client certificate."""

    static: ClassVar[bool] = False
    nodes_stand_in: ClassVar[bool] = True

    async def find(self, query: Query) -> Sequence[Endpoint]:
        tls, token_file = query.service.tls, query.service.token_file
        context = await off_loop(lambda: tls_context(tls) if tls else unverified_context())
        headers: dict[str, str] = {}
        if token_file:
            if not tls:
                # Whoever answers at the address would learn the token.
                raise DiscoveryError("token_file is not sent to a server that is not verified; set tls.ca")
            # Read each time: kubelet and controllers rotate tokens.
            headers["Authorization"] = f"Bearer {await off_loop(lambda: bearer(token_file))}"
        request = Request("GET", "/api/v1/namespaces/default/endpoints/kubernetes", context, headers=headers)

        async def read(body: bytes) -> tuple[Endpoint, ...]:
            return _ready(query.cluster, body)

        return await first_good(query, request, read)


def _ready(cluster: Cluster, body: bytes) -> tuple[Endpoint, ...]:
    try:
        subsets = msgspec.json.decode(body, type=_Endpoints).subsets or []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DiscoveryError(f"not an Endpoints object: {one_line(str(error))}") from None
    found = [
        endpoint(cluster, address.ip, _https_port(subset.ports or []))
        for subset in subsets
        for address in subset.addresses or []
    ]
    if not found:
        raise DiscoveryError("the service kubernetes has no ready endpoint")
    return tuple(found)


def _https_port(ports: list[_Port]) -> int:
    tcp = [each for each in ports if each.protocol == "TCP"]
    named = [each for each in tcp if each.name == "https"] or tcp
    if len(named) != 1:
        raise DiscoveryError("a subset has no port https and not just one port")
    return named[0].port


def bearer(path: str) -> str:
    """The token in that file. Raises DiscoveryError, which never shows what the file holds."""
    try:
        token = read_file(path, _MAX_TOKEN).strip().decode("ascii")
    except OSError as error:
        raise DiscoveryError(f"token_file = {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise DiscoveryError(f"token_file = {path}: does not hold one token")
    return token
