"""Files that are whole at every instant, and the lock that lets one apply run at a time."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lbha.errors import ApplyError


@dataclass(frozen=True, slots=True)
class Access:
    """Mode bits, and the group that goes with them where the host has it."""

    mode: int
    group: str | None = None


PRIVATE = Access(0o600)


def prepare(path: Path, data: bytes, access: Access) -> Path:
    """Write `data` beside `path` and fsync it: `os.replace` then makes it `path` without needing room.

    Raises OSError that names the file.
    """
    path = path.resolve()  # an operator's symbolic link stays one
    # A leading dot and no .cfg at the end: haproxy -f DIRECTORY does not read it.
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            _give(descriptor, access)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None
    return beside


def commit(prepared: Path, path: Path) -> None:
    """Put a prepared file in its place and make that last."""
    path = path.resolve()
    prepared.replace(path)
    sync(path.parent)


def write(path: Path, data: bytes, access: Access) -> None:
    """`prepare` and `commit`."""
    commit(prepare(path, data, access), path)


def read(path: Path) -> bytes | None:
    """The content; None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def sync(directory: Path) -> None:
    """fsync a directory: names in it last from here on."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_directory(path: Path) -> Path:
    """Make it, with its parents, for root alone (0700) where it is new."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextlib.contextmanager
def lock(path: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold the lock file. ApplyError when another holds it for longer than `patience` s.

    The kernel gives it back when the process ends in whatever way.
    """
    end = time.monotonic() + patience
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise ApplyError(
                        f"another lbha apply has held {path} for {patience:g} s; "
                        f"try again, or find it with: fuser {path}"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _give(descriptor: int, access: Access) -> None:
    if access.group is not None:
        try:
            os.fchown(descriptor, -1, grp.getgrnam(access.group).gr_gid)
        except (KeyError, PermissionError):
            return  # the group is unknown here, or we are not root: 0600 stands
    os.fchmod(descriptor, access.mode)
