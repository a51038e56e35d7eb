"""etcd as the stand-in apiserver asks it: over its JSON gateway and one kept connection."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from lbha.lab import http1

ETCD_TIMEOUT = 2.0
"""Seconds that one readiness read of etcd may take."""

REUSE = 0.5
"""Seconds for which its result answers further probes, so that many load balancers cost one read."""

_READ = json.dumps({"key": b64encode(b"/registry/health").decode()}).encode()


class Etcd:
    """Whether etcd can be read: one linearizable read at a time over one kept connection.

    `urls` lists its endpoints with commas; the next one is tried when one fails.
    """

    def __init__(self, urls: str, tls: ssl.SSLContext) -> None:
        parts = [urlsplit(url) for url in urls.split(",")]
        self._endpoints = deque((part.hostname or "", part.port or 2379) for part in parts)
        self._tls = tls
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._checked = -REUSE
        self._problem: str | None = "not asked yet"

    async def ask(self, path: str, body: object) -> dict[str, Any]:
        """The JSON gateway's answer. OSError (TimeoutError too), EOFError or ValueError when there is none."""
        async with self._lock:
            reply = await self._patiently(path, json.dumps(body).encode())
        if reply.status != 200:
            raise ValueError(f"status {reply.status}")
        return dict(json.loads(reply.body))

    async def problem(self) -> str | None:
        """None when etcd was readable within the last moment, else why not."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if clock() - self._checked >= REUSE:
                before, self._problem = self._problem, await self._read()
                self._checked = clock()
                if before != self._problem:
                    print(f"stand-in: etcd: {self._problem or 'readable'}", flush=True)
            return self._problem

    async def _read(self) -> str | None:
        try:
            reply = await self._patiently("/v3/kv/range", _READ)
        except TimeoutError:
            return f"no answer within {ETCD_TIMEOUT:g} s"
        except (OSError, EOFError, ValueError) as error:
            return str(error) or type(error).__name__
        if reply.status == 200:
            return None
        return f"status {reply.status}: {reply.body[:200].decode(errors='replace')}"

    async def _patiently(self, path: str, body: bytes) -> http1.Reply:
        """The answer of the first endpoint that gives one; what fails drops the connection."""
        attempts = len(self._endpoints) + (self._link is not None)  # a kept connection may have died unnoticed
        try:
            async with asyncio.timeout(ETCD_TIMEOUT):
                while True:
                    attempts -= 1
                    try:
                        return await self._exchange(path, body)
                    except (OSError, EOFError):
                        self._drop()
                        if not attempts:
                            raise
        except BaseException:
            # Also when the prober gave up, after 2 s as well: kept, a dead connection would be asked for ever.
            self._drop()
            raise

    async def _exchange(self, path: str, body: bytes) -> http1.Reply:
        host, port = self._endpoints[0]
        if self._link is None:
            self._endpoints.rotate(-1)
            self._link = await asyncio.open_connection(host, port, ssl=self._tls)
        reader, writer = self._link
        writer.write(http1.request("POST", path, host, body))
        reply = await http1.read_reply(reader)
        if not reply.reusable:
            self._drop()
        return reply

    def _drop(self) -> None:
        if self._link is not None:
            self._link[1].transport.abort()
            self._link = None
