"""The drill's hold on its client: starts it on the client's host, collects its records, ends it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TypeVar

import msgspec

from lbha.errors import LabError
from lbha.lab import lab
from lbha.lab.records import Probed, Record, Request, Verdict, Watch, Write
from lbha.lab.spec import SPEC_FILE, LabSpec

WATCHES = 10
TLS_TIMEOUT = 10.0
"""Seconds that a client waits for its TLS handshake, as client-go's transport does. With 1 s, the clients of a
busy apiserver would all give up while it works on those that gave up before."""
PROBE_TIMEOUT = 15.0
VERIFY_TIMEOUT = 90.0

_R = TypeVar("_R", bound=Record)


class Load:
    """A running client with so many idle watches and busy ones (`streams`); `count` is of both, and each
    gives an attempt to connect up after `patience` (s). Use it in a `with` statement: it ends with it."""

    def __init__(self, spec: LabSpec, watches: int = WATCHES, streams: int = 0, patience: float = 1.0) -> None:
        self._spec, self.count = spec, watches + streams
        self._records: list[Record] = []
        client = [sys.executable, "-m", "lbha.lab.client", "--lab", str(spec.directory / SPEC_FILE)]
        options = ("--watches", watches, "--streams", streams, "--patience", patience)
        argv = lab.command_in(spec, "client", [*client, "--json", *map(str, options)])
        with (spec.log / "client.log").open("ab") as log:
            # A session of its own: Ctrl-C is for the drill, which then ends the client.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._reader.start()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def requests(self) -> list[Request]:
        """Every request that has ended so far."""
        return self._of(Request)

    def writes(self) -> list[Write]:
        """Every write that has ended so far."""
        return self._of(Write)

    def watches(self) -> list[Watch]:
        """What the watches have told so far."""
        return self._of(Watch)

    def probe(self) -> Probed:
        """End the load; how the watches are. LabError when the client does not answer."""
        return self._command("probe", Probed, PROBE_TIMEOUT)

    def verify(self) -> Verdict:
        """Whether every acknowledged write is there. LabError when that cannot be found out."""
        return self._command("verify", Verdict, VERIFY_TIMEOUT)

    def _of(self, kind: type[_R]) -> list[_R]:
        return [record for record in self._records[:] if isinstance(record, kind)]

    def _command(self, command: str, answer: type[_R], timeout: float) -> _R:
        assert self._process.stdin
        with suppress(OSError):
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        until = time.monotonic() + timeout
        while not (found := self._of(answer)):
            if time.monotonic() > until or not self._reader.is_alive():
                raise LabError(f"the client did not answer {command!r}; see {self._spec.log / 'client.log'}")
            time.sleep(0.02)
        return found[-1]

    def _read(self) -> None:
        assert self._process.stdout
        decode = msgspec.json.Decoder(Record).decode
        for line in self._process.stdout:
            with suppress(msgspec.DecodeError):
                self._records.append(decode(line))
