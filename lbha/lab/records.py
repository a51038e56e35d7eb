"""What the drill's clients saw, one record a line of JSON. Times are seconds of CLOCK_MONOTONIC, which all
namespaces of a machine share."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct, frozen=True, tag="request"):
    """One new TLS connection and GET to the apiserver. `error` is None when it was answered with 200."""

    start: float
    end: float
    error: str | None


class Write(msgspec.Struct, frozen=True, tag="write"):
    """One put of a new key to etcd. `error` is None when it was acknowledged."""

    start: float
    end: float
    error: str | None


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Watch number `index` got its first event, or learnt that its connection is dead. `busy`: events go on."""

    index: int
    at: float
    connected: bool
    busy: bool = False


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    """At the end of the load: how many watches, idle and busy, sat on a dead connection without knowing, and
    the longest that the client itself came late with a request (s)."""

    unaware: int
    unaware_busy: int
    lag: float


class Verdict(msgspec.Struct, frozen=True, tag="verdict"):
    """Every acknowledged key was looked for: how many were acknowledged, how many of them are lost."""

    acknowledged: int
    lost: int


Attempt = Request | Write
Record = Request | Write | Watch | Probed | Verdict
