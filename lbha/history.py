"""What was applied before: {state_dir}/history/NNNNNN/ with its files and a manifest, the last ten.

An entry is whole before it has its number. While an apply is under way it is called `pending`; a `pending`
found later tells that an apply was killed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lbha import files

KEEP = 10

_BUILDING, _PENDING, _MANIFEST = "building", "pending", "manifest.json"


class Manifest(msgspec.Struct, frozen=True):
    """Where an entry comes from.

    `origin` is "apply", "rollback to NNNNNN", or "found" for files that were on disk and not from lbha.
    `created` is UTC (ISO 8601). `config` is the sha256 of lbha.toml, `tls` the digest of every TLS file that
    haproxy reads, `reads` those files by the key that names each, `pairs` the keys of certificate and key for
    each file that lbha made of two, `pools` each service's backends as address:port, `redirected` the services
    that nftables redirects; all empty where unknown.
    """

    origin: str
    created: str
    config: str = ""
    tls: str = ""
    pools: dict[str, list[str]] = {}
    reads: dict[str, str] = {}
    pairs: dict[str, tuple[str, str]] = {}
    redirected: list[str] = []

    @property
    def rollback(self) -> bool:
        """Whether `lbha rollback` laid it."""
        return self.origin.startswith("rollback")


@dataclass(frozen=True, slots=True)
class Entry:
    """One configuration. `number` is 0 while it is pending. A file that it lacks did not exist."""

    number: int
    files: Mapping[str, bytes]
    manifest: Manifest

    @property
    def name(self) -> str:
        """Its directory's name."""
        return f"{self.number:06d}" if self.number else _PENDING


class History:
    """The entries below a directory. Every change leaves whole entries, whenever it is killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def entries(self) -> list[Entry]:
        """The applied configurations, oldest first; the last one is in force. Damaged ones are left out."""
        found = (self._read(f"{number:06d}", number) for number in self._numbers())
        return [entry for entry in found if entry is not None]

    def newest(self) -> Entry | None:
        """The one in force."""
        found = (self._read(f"{number:06d}", number) for number in reversed(self._numbers()))
        return next((entry for entry in found if entry is not None), None)

    def pending(self) -> Entry | None:
        """What an apply that was killed was about to do."""
        return self._read(_PENDING, 0)

    def begin(self, contents: Mapping[str, bytes], manifest: Manifest) -> None:
        """Write the pending entry. OSError when it cannot be written; then there is none."""
        files.private_directory(self._directory)
        self.abort()
        building = self._directory / _BUILDING
        building.mkdir(mode=0o700)
        try:
            for name, data in contents.items():
                files.write(building / name, data, files.PRIVATE)
            files.write(building / _MANIFEST, msgspec.json.encode(manifest), files.PRIVATE)
        except OSError:
            shutil.rmtree(building, ignore_errors=True)
            raise
        building.rename(self._directory / _PENDING)
        files.sync(self._directory)

    def commit(self, *, replace: bool = False) -> None:
        """Give the pending entry its number, and let go of all but the last KEEP.

        `replace`: the newest entry's own, for the same files with other certificates.
        """
        numbers = self._numbers()
        if replace and numbers:
            number = numbers.pop()
            self._remove(f"{number:06d}")
        else:
            number = numbers[-1] + 1 if numbers else 1
        (self._directory / _PENDING).rename(self._directory / f"{number:06d}")
        files.sync(self._directory)
        for old in [*numbers, number][:-KEEP]:
            self._remove(f"{old:06d}")

    def abort(self) -> None:
        """Remove the pending entry, and what is left of one that was never whole."""
        self._remove(_PENDING)
        shutil.rmtree(self._directory / _BUILDING, ignore_errors=True)

    def _numbers(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdecimal())

    def _remove(self, name: str) -> None:
        # Not in one step: it first gets a name under which nobody takes it for an entry.
        building = self._directory / _BUILDING
        shutil.rmtree(building, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self._directory / name).rename(building)
            shutil.rmtree(building, ignore_errors=True)

    def _read(self, name: str, number: int) -> Entry | None:
        path = self._directory / name
        try:
            manifest = msgspec.json.decode((path / _MANIFEST).read_bytes(), type=Manifest)
            contents = {
                file.name: file.read_bytes()
                for file in sorted(path.iterdir())
                if file.name != _MANIFEST and not file.name.startswith(".")
            }
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            return None
        return Entry(number, contents, manifest)
