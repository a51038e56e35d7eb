"""The last good answer of each source, on disk, so that it survives a restart.

One file a service. What it says counts only for the same cluster, service and source; anything else, damaged
or edited into nonsense, is no memory. The file's modification time is when the answer was last confirmed, so
an answer that stays the same costs no write: on a control plane node, etcd needs the disk's fsyncs.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from lbha.discovery.endpoints import checked
from lbha.discovery.source import read_file
from lbha.errors import DiscoveryError
from lbha.model import Cluster, Endpoint, Service

_MAX_BYTES = 4 << 20


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1]
    cluster: str
    service: str
    source: str
    endpoints: list[Endpoint]


@dataclass(frozen=True, slots=True)
class LastGood:
    """An answer and when it was last confirmed (wall clock, s since the epoch)."""

    endpoints: tuple[Endpoint, ...]
    confirmed: float


def recall(directory: Path, cluster: Cluster, service: Service) -> LastGood | None:
    """What `remember` kept for this very cluster, service and source; None for anything else. Never raises."""
    try:
        path = _path(directory, service)
        confirmed = path.stat().st_mtime
        record = msgspec.json.decode(read_file(str(path), _MAX_BYTES), type=_Record)
        if (record.cluster, record.service, record.source) != (cluster.name, service.name, service.backends):
            return None
        return LastGood(checked(cluster, record.endpoints), confirmed)
    except (OSError, ValueError, DiscoveryError, msgspec.MsgspecError):
        return None


def remember(
    directory: Path, cluster: Cluster, service: Service, endpoints: tuple[Endpoint, ...], now: float
) -> None:
    """Keeps an answer, atomically and, where it is new, durably. Raises OSError."""
    path = _path(directory, service)
    ordered = sorted(set(endpoints), key=lambda each: each.sort_key)
    data = msgspec.json.format(
        msgspec.json.encode(_Record(1, cluster.name, service.name, str(service.backends), ordered))
    )
    if not _holds(path, data):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=directory)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(staged).replace(path)
        except BaseException:
            Path(staged).unlink(missing_ok=True)
            raise
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    os.utime(path, (now, now))


def _holds(path: Path, data: bytes) -> bool:
    try:
        return not path.is_symlink() and read_file(str(path), _MAX_BYTES) == data
    except OSError:
        return False


def _path(directory: Path, service: Service) -> Path:
    return directory / f"{service.name}.json"
