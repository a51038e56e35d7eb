"""Stand-ins for a node's kube-controller-manager and kube-scheduler: they elect, and do nothing else.

As the real ones do (client-go's leaderelection), each tries every `RETRY` seconds to take or renew one Lease by
compare-and-swap, and takes it over when it has seen no change of it for its duration, by its own clock. That is
shorter than the real 15 s, so that tests need not wait. The leases are in etcd, at `KEY`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import uuid
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lbha.lab.etcd_gateway import Etcd

PORTS = {"kube-controller-manager": 10257, "kube-scheduler": 10259}
"""Where each answers for its health, on loopback."""

PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"
KEY = "/registry/leases/kube-system/"

RETRY = 2.0
DURATION = 8

_HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease as one candidate last saw it change: its holder and renewal, and when (monotonic)."""

    holder: str
    renewed: str
    at: float


def may_take(seen: Seen | None, me: str, now: float) -> bool:
    """Whether a candidate may write the lease: it is free, its own, or not renewed for its duration."""
    return seen is None or seen.holder in ("", me) or now - seen.at > DURATION


async def read(etcd: Etcd, name: str) -> tuple[dict[str, Any] | None, str]:
    """The lease of that name, and the revision that it must still have to be replaced."""
    answer = await etcd.ask("/v3/kv/range", {"key": _key(name)})
    for each in answer.get("kvs", ()):
        return json.loads(b64decode(each["value"])), each["mod_revision"]
    return None, "0"


class Candidate:
    """One component on one node."""

    def __init__(self, etcd: Etcd, component: str, host: str) -> None:
        self._etcd, self._component = etcd, component
        self._me = f"{host}_{uuid.uuid4()}"
        self._seen: Seen | None = None

    async def run(self) -> None:
        """Until cancelled. etcd that does not answer costs the lease, as it costs the real ones."""
        while True:
            try:
                await self._try()
            except (OSError, EOFError, ValueError, KeyError):
                pass
            await asyncio.sleep(RETRY)

    async def _try(self) -> None:
        lease, revision = await read(self._etcd, self._component)
        spec = lease["spec"] if lease else {}
        holder, renewed = spec.get("holderIdentity", ""), spec.get("renewTime", "")
        if self._seen is None or (self._seen.holder, self._seen.renewed) != (holder, renewed):
            self._seen = Seen(holder, renewed, time.monotonic())
        if not may_take(self._seen, self._me, time.monotonic()):
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        acquired = spec.get("acquireTime", now) if holder == self._me else now
        moved = int(spec.get("leaseTransitions", -1)) + (holder != self._me)
        await self._etcd.ask("/v3/kv/txn", _swap(self._component, self._me, acquired, now, moved, revision))


def _swap(component: str, me: str, acquired: str, renewed: str, moved: int, revision: str) -> dict[str, Any]:
    lease = {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": component,
            "namespace": "kube-system",
            "annotations": {"lbha.lab/stand-in": "nothing is behind it but an election"},
        },
        "spec": {
            "holderIdentity": me,
            "leaseDurationSeconds": DURATION,
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": moved,
        },
    }
    value = b64encode(json.dumps(lease).encode()).decode()
    return {
        "compare": [{"target": "MOD", "key": _key(component), "mod_revision": revision}],
        "success": [{"request_put": {"key": _key(component), "value": value}}],
    }


def _key(name: str) -> str:
    return b64encode(f"{KEY}{name}".encode()).decode()


async def serve(etcd: Etcd, host: str, tls: ssl.SSLContext) -> None:
    """Both components of one node, until cancelled."""

    async def healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_HEALTHY)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass
        writer.close()

    async with asyncio.TaskGroup() as group:
        for component, port in PORTS.items():
            await asyncio.start_server(healthy, "127.0.0.1", port, ssl=tls)
            group.create_task(Candidate(etcd, component, host).run())
