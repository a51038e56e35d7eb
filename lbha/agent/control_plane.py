"""Which controller-manager and scheduler is active: asked of this node's apiserver, for people alone.

The leases come from its own apiserver, over the credentials of `backends = "kubernetes"`; whether the two run
here at all is asked of themselves, on their health ports, which answer without credentials. Nothing waits for
this, and nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated

import httpx
import msgspec

from lbha.discovery.endpoints import one_line
from lbha.discovery.kubernetes import bearer
from lbha.discovery.peers import reason, tls_context, unverified_context
from lbha.discovery.source import off_loop
from lbha.errors import DiscoveryError
from lbha.facts import ControlPlaneFacts, Lease
from lbha.model import Cluster, Endpoint, Kind, Node, Service

COMPONENTS = {"kube-controller-manager": 10257, "kube-scheduler": 10259}
"""Each lease's name, and the default of the component's `--secure-port`."""

INTERVAL = 10.0
"""Seconds between questions. A lease lasts 15 s."""

DEADLINE = 1.0
"""Seconds for all answers of one round."""

_ROUNDS = 60
"""Rounds with one client: certificates may be replaced on disk."""

_PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
_MAX_BYTES = 64 << 10
_DENIED = "may not read leases in kube-system; `lbha wiring rbac` shows what to allow"


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Lease(msgspec.Struct, tag_field="kind", tag="Lease"):
    spec: _Spec = msgspec.field(default_factory=_Spec)


class ControlPlaneWatch:
    """One node's masters, until cancelled. `members` says where the apiservers are, each time anew."""

    def __init__(self, cluster: Cluster, node: Node, members: Callable[[str], Sequence[Endpoint]]) -> None:
        self.facts = ControlPlaneFacts()
        self.components: tuple[str, ...] | None = None
        self._service = next((each for each in cluster.services if each.kind is Kind.KUBE_APISERVER), None)
        self._node, self._members = node, members

    async def run(self) -> None:
        """Ask, again and again; at once over where lbha.toml has no apiserver."""
        service = self._service
        while service is not None:
            verified: ssl.SSLContext | None = None
            try:
                verified = await off_loop(lambda: _credentials(service))
            except DiscoveryError as error:
                self.facts = ControlPlaneFacts(service.name, (), str(error))
            limits = httpx.Limits(keepalive_expiry=3 * INTERVAL)
            async with (
                httpx.AsyncClient(verify=verified or False, trust_env=False, limits=limits) as api,
                httpx.AsyncClient(verify=unverified_context(), trust_env=False, limits=limits) as local,
            ):
                for _ in range(_ROUNDS):
                    own = [at for at in self._members(service.name) if at.address in self._node.addresses]
                    self.components = await self._running(local) if own else None
                    if verified is not None:
                        self.facts = await self._ask(service, own, api)
                    await asyncio.sleep(INTERVAL)

    async def _ask(self, service: Service, own: list[Endpoint], api: httpx.AsyncClient) -> ControlPlaneFacts:
        if not own:
            return ControlPlaneFacts(service.name, (), f"{service.name} has no server on {self._node.name}")
        try:
            async with asyncio.timeout(DEADLINE):
                token = service.token_file
                headers = {"Authorization": f"Bearer {await off_loop(lambda: bearer(token))}"} if token else {}
                leases = await asyncio.gather(*(_lease(api, own[0], each, headers) for each in COMPONENTS))
        except TimeoutError:
            return ControlPlaneFacts(service.name, (), f"{own[0]}: no answer in {DEADLINE:g} s")
        except DiscoveryError as error:
            return ControlPlaneFacts(service.name, (), f"{own[0]}: {error}")
        except Exception as error:  # a stranger's answer must not end the agent
            return ControlPlaneFacts(service.name, (), one_line(f"{own[0]}: {type(error).__name__}: {error}"))
        return ControlPlaneFacts(service.name, tuple(leases), None)

    async def _running(self, local: httpx.AsyncClient) -> tuple[str, ...]:
        """Those that answer on loopback, or on the node's own address where they are bound to that."""
        places = ("127.0.0.1", self._node.address)
        asked = [_answers(local, [Endpoint(at, port) for at in places]) for port in COMPONENTS.values()]
        return tuple(name for name, runs in zip(COMPONENTS, await asyncio.gather(*asked), strict=True) if runs)


def _credentials(service: Service) -> ssl.SSLContext:
    """As discovery has them. DiscoveryError where there are none, or none that may be used."""
    tls, token = service.tls, service.token_file
    key = f"services.{service.name}"
    if not token and not (tls and tls.cert):
        raise DiscoveryError(
            f"no credentials; set {key}.tls.cert and key, and allow them what `lbha wiring rbac` shows"
        )
    if not tls or not tls.ca:
        raise DiscoveryError(f"credentials are not shown to a server that is not verified; set {key}.tls.ca")
    return tls_context(tls)


async def _lease(api: httpx.AsyncClient, at: Endpoint, component: str, headers: dict[str, str]) -> Lease:
    """Raises DiscoveryError."""
    body = bytearray()
    try:
        plain = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with api.stream("GET", f"https://{at}{_PATH}/{component}", headers=plain | headers) as answer:
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise DiscoveryError(f"a lease of more than {_MAX_BYTES} bytes")
            status = answer.status_code
    except (httpx.HTTPError, OSError) as error:
        raise DiscoveryError(reason(error)) from None
    if status == 404:
        return Lease(component, "", 0.0, 0.0)
    if status != 200:
        raise DiscoveryError(f"HTTP {status}{f', {_DENIED}' if status in (401, 403) else ''}")
    return read_lease(component, bytes(body))


def read_lease(component: str, body: bytes) -> Lease:
    """A Lease of coordination.k8s.io/v1, whose `holderIdentity` is HOST_UUID. Raises DiscoveryError."""
    try:
        spec = msgspec.json.decode(body, type=_Lease).spec
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DiscoveryError(f"not a lease: {one_line(str(error))}") from None
    identity = one_line(spec.holder_identity or "")
    host = identity.rpartition("_")[0] or identity  # no host name holds a "_"
    renewed = spec.renew_time.timestamp() if spec.renew_time else 0.0
    return Lease(component, host, renewed, float(spec.lease_duration_seconds or 0))


async def _answers(local: httpx.AsyncClient, places: list[Endpoint]) -> bool:
    """Whatever it answers: health is another question than whether it runs."""
    for at in places:
        try:
            async with asyncio.timeout(DEADLINE / len(places)):
                await local.get(f"https://{at}/healthz")
        except Exception:  # refused, silent, or no HTTP at all
            continue
        return True
    return False
