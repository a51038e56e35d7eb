"""Just enough HTTP/1.1 to talk to etcd and the apiserver over asyncio streams.

A full client costs several ms of CPU a connection, which would be the largest load of the whole lab; this
costs about one, nearly all of it TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from dataclasses import dataclass
from pathlib import Path

# A connection's read buffer. By default Python clears 256 KiB for each, and touching that much new memory took
# longer than the handshakes when hundreds of clients came back at once (1.8 s until the last instead of 0.8 s).
SSLProtocol.max_size = 16 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, whether the connection can be used again, and the whole body."""

    status: int
    reusable: bool
    body: bytes


def client_tls(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A context that verifies the server by `ca` and never resumes a session."""
    context = ssl.create_default_context(cafile=str(ca))
    context.options |= ssl.OP_NO_TICKET
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def request(method: str, path: str, host: str, body: bytes = b"", *, close: bool = False) -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case). EOFError when the peer ends first, ValueError on nonsense."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip("\r\n").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1."):
        raise ValueError(f"no HTTP answer: {first[:60]!r}")
    headers = dict(line.lower().split(":", 1) for line in rest if ":" in line)
    return int(parts[1]), {name: value.strip() for name, value in headers.items()}


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; empty at its end."""
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """A whole answer. EOFError when the peer ends first, ValueError on nonsense, else OSError."""
    status, headers = await read_head(reader)
    reusable = headers.get("connection") != "close"
    if "content-length" in headers:
        return Reply(status, reusable, await reader.readexactly(int(headers["content-length"])))
    if headers.get("transfer-encoding") == "chunked":
        chunks = []
        while chunk := await read_chunk(reader):
            chunks.append(chunk)
        return Reply(status, reusable, b"".join(chunks))
    return Reply(status, False, await reader.read())
