"""The load of a drill: what a client of the control plane does, and what it sees.

`python -m lbha.lab.client --lab LABDIR/lab.json`, inside the client's namespace: a new TLS connection and GET
/version each 20 ms, a put of a new key to etcd each 50 ms over a new connection, both with 1 s until they have
failed and both without waiting for each other (open loop), and idle watches. It prints a line each second and a
summary at the end.

With `--json` it prints one record a line (`lbha.lab.records`) and obeys its standard input: `probe` ends the
load and asks the watches, `verify` looks for every acknowledged key and ends, as does the end of the input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from lbha.errors import LabError
from lbha.lab import http1
from lbha.lab.measure import figures
from lbha.lab.records import Attempt, Probed, Record, Request, Verdict, Watch, Write
from lbha.lab.spec import LabSpec, read
from lbha.lab.watches import Watches
from lbha.timing import DRILL_REQUEST

WRITE_INTERVAL = 0.05
TIMEOUT = 1.0
"""Seconds until an attempt has failed."""

VERIFY_TIMEOUT = 60.0
_APISERVER_PORT = 6443
_FAILURES = (OSError, EOFError, ValueError)


class Load:
    """Requests, writes and watches against one lab; every record goes to `emit`."""

    def __init__(
        self, spec: LabSpec, watches: int, streams: int, patience: float, emit: Callable[[Record], None]
    ) -> None:
        self._spec, self._emit = spec, emit
        self._anonymous = http1.client_tls(spec.ca)
        self._known = http1.client_tls(spec.ca, spec.client_cert, spec.client_key)
        self._prefix = f"/lbha-drill/{os.getpid()}-{time.time_ns()}/"
        self._keys = 0
        self._acknowledged: set[str] = set()
        self._lag = 0.0
        self._under_way: set[asyncio.Task[None]] = set()
        self._clock = asyncio.get_running_loop().time
        self._paced = [
            asyncio.create_task(self._pace(DRILL_REQUEST, self._request)),
            asyncio.create_task(self._pace(WRITE_INTERVAL, self._write)),
        ]
        self.watches = Watches(spec.vip, spec.apiserver_port, self._known, watches, streams, emit, patience)

    async def stop(self) -> None:
        """Start no more attempts, and wait for those under way."""
        for task in self._paced:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def probe(self) -> None:
        """End the load and ask the watches whether they still live."""
        await self.stop()
        idle, busy = await self.watches.unaware(lambda address: asyncio.ensure_future(self._answers(address)))
        self._emit(Probed(idle, busy, self._lag))

    async def verify(self) -> None:
        """Look for every acknowledged key, then remove the keys. LabError when etcd cannot be read at all."""
        everything = json.dumps({**_range(self._prefix), "keys_only": True}).encode()
        reply = await self._insist("/v3/kv/range", everything)
        found = {entry["key"] for entry in json.loads(reply.body).get("kvs", ())}
        lost = sum(_encode(key) not in found for key in self._acknowledged)
        await self._insist("/v3/kv/deleterange", json.dumps(_range(self._prefix)).encode())
        self._emit(Verdict(len(self._acknowledged), lost))

    async def _pace(self, interval: float, once: Callable[[], Awaitable[None]]) -> None:
        due = self._clock()
        while True:
            await asyncio.sleep(due - self._clock())
            late = self._clock() - due
            self._lag = max(self._lag, late)
            task = asyncio.ensure_future(once())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            # A client that was held up goes on at its pace; it does not catch up in one burst.
            due += interval if late < interval else late + interval

    async def _request(self) -> None:
        start = self._clock()
        error = await self._attempt(self._spec.apiserver_port, self._anonymous, "GET", "/version", b"")
        self._emit(Request(start, self._clock(), error))

    async def _write(self) -> None:
        key = f"{self._prefix}{self._keys:08d}"
        self._keys += 1
        body = json.dumps({"key": _encode(key), "value": _encode("1")}).encode()
        start = self._clock()
        error = await self._attempt(self._spec.etcd_port, self._known, "POST", "/v3/kv/put", body)
        if error is None:
            self._acknowledged.add(key)
        self._emit(Write(start, self._clock(), error))

    async def _answers(self, address: str) -> bool:
        try:
            await self._exchange(address, _APISERVER_PORT, self._anonymous, "GET", "/version", b"")
        except _FAILURES:
            return False
        return True

    async def _insist(self, path: str, body: bytes) -> http1.Reply:
        until = self._clock() + VERIFY_TIMEOUT
        while True:
            try:
                reply = await self._exchange(
                    self._spec.vip, self._spec.etcd_port, self._known, "POST", path, body, timeout=5.0
                )
                if reply.status == 200:
                    return reply
                why = f"status {reply.status}"
            except _FAILURES as error:
                why = str(error) or type(error).__name__
            if self._clock() > until:
                raise LabError(f"etcd cannot be read through {self._spec.vip}: {why}")
            await asyncio.sleep(0.2)

    async def _attempt(self, port: int, tls: ssl.SSLContext, method: str, path: str, body: bytes) -> str | None:
        try:
            reply = await self._exchange(self._spec.vip, port, tls, method, path, body)
        except _FAILURES as error:
            return _reason(error)
        return None if reply.status == 200 else f"status {reply.status}"

    async def _exchange(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        method: str,
        path: str,
        body: bytes,
        *,
        timeout: float = TIMEOUT,
    ) -> http1.Reply:
        writer = None
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
                writer.write(http1.request(method, path, host, body, close=True))
                return await http1.read_reply(reader)
        finally:
            if writer is not None:
                writer.transport.abort()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError | EOFError):
        return "reset"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, OSError):
        return (error.strerror or "network").lower()
    return "nonsense"


def _encode(text: str) -> str:
    return b64encode(text.encode()).decode()


def _range(prefix: str) -> dict[str, str]:
    """Every key that starts with `prefix` (which ends in "/"; "0" is the next character)."""
    return {"key": _encode(prefix), "range_end": _encode(prefix[:-1] + "0")}


async def obey(spec: LabSpec, watches: int, streams: int, patience: float) -> None:
    """The machine's side: records out, commands in."""
    encode, out = msgspec.json.encode, sys.stdout.buffer

    def emit(record: Record) -> None:
        out.write(encode(record) + b"\n")
        out.flush()

    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    load = Load(spec, watches, streams, patience, emit)
    while command := (await commands.readline()).strip():
        if command == b"probe":
            await load.probe()
        elif command == b"verify":
            await load.verify()
            break
    load.watches.close()


async def show(spec: LabSpec, watches: int, streams: int, patience: float, duration: float | None) -> None:
    """The human's side: a line each second until `duration` (s) is over or Ctrl-C."""
    records: list[Attempt] = []
    died: set[int] = set()

    def emit(record: Record) -> None:
        if isinstance(record, Watch):
            if not record.connected:
                died.add(record.index)
            if record.index in died:
                print(f"watch {record.index} {'is back' if record.connected else 'learnt that it is dead'}")
        elif isinstance(record, Verdict):
            print(f"{record.acknowledged} acknowledged writes, {record.lost} of them lost")
        elif not isinstance(record, Probed):
            records.append(record)

    print(f"load on {spec.vip} of lab {spec.name} (apiserver: {spec.apiserver}); Ctrl-C ends it", flush=True)
    loop = asyncio.get_running_loop()
    load, began = Load(spec, watches, streams, patience, emit), loop.time()
    with suppress(asyncio.CancelledError):
        while duration is None or loop.time() - began < duration:
            await asyncio.sleep(1.0)
            now = loop.time()
            if now - began < 2:
                continue  # What was started in this second may still be under way: say the one before it.
            print(f"{time.strftime('%H:%M:%S')}  {_line(records, now - 2, now - 1)}", end="")
            print(f"  watches {load.watches.connected} of {watches + streams} connected", flush=True)
    ended = loop.time()
    await load.stop()
    load.watches.close()
    print(f"all of {ended - began:.0f} s:  {_line(records, began, ended)}")
    await load.verify()


def _line(records: list[Attempt], begin: float, end: float) -> str:
    parts = []
    for kind, name in ((Request, "requests"), (Write, "writes")):
        got = [record for record in records if isinstance(record, kind) and begin <= record.start < end]
        seen = figures(got, begin, end)
        why = f" ({', '.join(seen.errors)})" if seen.errors else ""
        parts.append(
            f"{name} {seen.count - seen.failed} ok {seen.failed} failed{why}, gap {seen.gap_ms:.0f} ms"
        )
    return "  ".join(parts)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="lbha lab client", description="A client's load on a lab's VIP.")
    parser.add_argument("--lab", type=Path, required=True, help="the lab's lab.json")
    parser.add_argument("--watches", type=int, default=10, help="idle watches (default 10)")
    parser.add_argument("--streams", type=int, default=0, help="busy watches (default none)")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds until a watch tries anew (1)")
    parser.add_argument("--duration", type=float, help="seconds (default: until Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="records out, commands in")
    args = parser.parse_args()
    try:
        spec = read(args.lab)
        counts = args.watches, args.streams, args.patience
        asyncio.run(obey(spec, *counts) if args.json else show(spec, *counts, args.duration))
    except LabError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
