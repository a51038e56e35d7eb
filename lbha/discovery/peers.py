"""Asks all known servers of a service at once over HTTP; the first good answer wins."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lbha.discovery.endpoints import node_endpoints, one_line
from lbha.discovery.source import Query
from lbha.errors import DiscoveryError
from lbha.model import Endpoint, Tls

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 4 << 20

_Reader = Callable[[bytes], Awaitable[tuple[Endpoint, ...]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of each server. `context` is None for plain HTTP."""

    method: str
    path: str
    context: ssl.SSLContext | None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Verifies the server's chain and not its name, as haproxy's `verify required ca-file` does.

    Without `ca` the system's authorities decide. Blocking. Raises DiscoveryError naming the bad file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
        else:
            context.set_default_verify_paths()
    except (OSError, ValueError) as error:
        raise DiscoveryError(f"tls.ca = {tls.ca}: {_tls_problem(error)}") from None
    if tls.cert and tls.key:
        try:
            # A password that is wrong for certain: OpenSSL would ask for one on the terminal.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "\0")
        except (OSError, ValueError) as error:
            raise DiscoveryError(f"tls.cert = {tls.cert}, tls.key = {tls.key}: {_tls_problem(error)}") from None
    return context


def unverified_context() -> ssl.SSLContext:
    """For an apiserver of which lbha.toml knows no CA: as haproxy's checks without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def first_good(query: Query, request: Request, read: _Reader) -> tuple[Endpoint, ...]:
    """The first answer that `read` accepts. `read` raises DiscoveryError for one that it does not.

    The servers of the last good answer are asked first; the nodes, when these do not help in half the time:
    all of the old servers may have been replaced meanwhile. Raises DiscoveryError.
    """
    loop = asyncio.get_running_loop()
    # A little less than the handler's limit, so that the reasons below are heard before it strikes.
    deadline = loop.time() + query.timeout * 0.95
    import httpx

    problems: dict[Endpoint, str] = {}
    nodes = node_endpoints(query.cluster, query.service)
    others = tuple(each for each in nodes if each not in query.last_good)
    groups = [group for group in (query.last_good, others) if group]
    async with httpx.AsyncClient(
        verify=request.context or False, trust_env=False, timeout=query.timeout
    ) as client:
        for index, group in enumerate(groups):
            share = (deadline - loop.time()) / (len(groups) - index)
            answer = await _first_of(client, group, request, read, share, problems)
            if answer is not None:
                return answer
    told = [f"{each} ({problems[each]})" for group in groups for each in group if each in problems]
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    tls = query.service.tls
    if tls and not tls.ca and any("CERTIFICATE_VERIFY_FAILED" in each for each in problems.values()):
        more += "; the system's authorities do not know it: set tls.ca"
    raise DiscoveryError(f"no usable answer from {', '.join(told[:3])}{more}")


async def _first_of(
    client: httpx.AsyncClient,
    group: tuple[Endpoint, ...],
    request: Request,
    read: _Reader,
    seconds: float,
    problems: dict[Endpoint, str],
) -> tuple[Endpoint, ...] | None:
    """The first good answer of a group within `seconds`; notes in `problems` why the others gave none."""
    tasks = {asyncio.create_task(_ask(client, each, request, read)): each for each in group}
    pending = set(tasks)
    end = asyncio.get_running_loop().time() + seconds
    try:
        while pending and (left := end - asyncio.get_running_loop().time()) > 0:
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    return task.result()
                except DiscoveryError as error:
                    problems[tasks[task]] = str(error)
                except Exception as error:
                    problems[tasks[task]] = one_line(f"{type(error).__name__}: {error}")
        for task in pending:
            problems[tasks[task]] = f"no answer in {seconds:.1f} s"
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(
    client: httpx.AsyncClient, server: Endpoint, request: Request, read: _Reader
) -> tuple[Endpoint, ...]:
    import httpx

    # Identity and raw: a compressed answer could grow a thousandfold past the limit.
    scheme = "https" if request.context else "http"
    body = bytearray()
    try:
        async with client.stream(
            request.method,
            f"{scheme}://{server}{request.path}",
            content=request.content,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **request.headers},
        ) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise DiscoveryError(f"an answer of more than {MAX_BYTES} bytes")
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise DiscoveryError(reason(error)) from None
    if status != 200:
        raise DiscoveryError(f"HTTP {status} {one_line(body[:80].decode(errors='replace'))}")
    return await read(bytes(body))


def reason(error: BaseException) -> str:
    """The kernel's or OpenSSL's own words, which httpx hides under `All connection attempts failed`."""
    told = str(error) or type(error).__name__
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLError) and inner.strerror:
            told = inner.strerror
        elif isinstance(inner, OSError) and inner.errno:
            told = os.strerror(inner.errno)  # asyncio puts `Connect call failed` into strerror
        inner = inner.__cause__ or inner.__context__
    return one_line(told)


def _tls_problem(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return one_line(str(reason or error or type(error).__name__))
