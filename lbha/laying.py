"""Laying files so that they can be taken away again: a manifest names each with its hash.

The manifest is written before the first file, so that whatever an install that was killed has laid is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lbha import files
from lbha.errors import LbhaError
from lbha.model import Mode

FILE = "install.json"
_ACCESS = files.Access(0o644)


class Manifest(msgspec.Struct, frozen=True):
    """What was laid: path -> sha256, and the mode whose units were enabled."""

    mode: Mode
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Paths by what has to become of them. `kept` were laid by lbha and changed by somebody else since."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    obsolete: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not (self.new or self.changed or self.obsolete)


class Laying:
    """Files below `root`; the manifest in `state_dir`, also below it."""

    def __init__(self, root: Path, state_dir: str) -> None:
        self._root = root
        self._manifest = self._at(state_dir) / FILE

    def manifest(self) -> Manifest | None:
        """What an earlier install laid. LbhaError when the file is damaged."""
        data = files.read(self._manifest)
        try:
            return None if data is None else msgspec.json.decode(data, type=Manifest)
        except msgspec.MsgspecError as error:
            raise LbhaError(f"{self._manifest}: {error}; remove it, and run lbha install again") from None

    def plan(self, wanted: Mapping[str, str], *, force: bool = False) -> Plan:
        """Look, and change nothing."""
        earlier = self.manifest()
        laid = earlier.files if earlier else {}
        on_disk = {path: self._digest(path) for path in {*wanted, *laid}}
        theirs = {
            path
            for path, digest in laid.items()
            if not force and on_disk[path] not in (None, digest, _sha256(wanted.get(path, "")))
        }
        differ = [path for path in wanted if on_disk[path] != _sha256(wanted[path]) and path not in theirs]
        return Plan(
            new=tuple(path for path in differ if on_disk[path] is None),
            changed=tuple(path for path in differ if on_disk[path] is not None),
            obsolete=tuple(path for path in laid if path not in wanted and path not in theirs),
            kept=tuple(sorted(theirs)),
        )

    def lay(self, wanted: Mapping[str, str], plan: Plan, mode: Mode) -> None:
        """Carry it out. OSError."""
        earlier = self.manifest()
        laid = dict(earlier.files) if earlier else {}
        ours = {path: _sha256(text) for path, text in wanted.items() if path not in plan.kept}
        self._write(Manifest(mode, ours | laid))  # An old hash stays until its file is replaced.
        for path in (*plan.new, *plan.changed):
            place = self._at(path)
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            files.write(place, wanted[path].encode(), _ACCESS)
        for path in plan.obsolete:
            self._remove(path)
        kept = {path: laid[path] for path in plan.kept}
        self._write(Manifest(mode, kept | ours))

    def take_away(self) -> tuple[list[str], list[str]]:
        """Remove what was laid and is as it was: the paths removed, and those kept as somebody changed them."""
        manifest = self.manifest()
        removed, kept = [], []
        for path, digest in sorted(manifest.files.items()) if manifest else ():
            found = self._digest(path)
            if found == digest:
                self._remove(path)
                removed.append(path)
            elif found is not None:
                kept.append(path)
        self._manifest.unlink(missing_ok=True)
        return removed, kept

    def _write(self, manifest: Manifest) -> None:
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        if files.read(self._manifest) != data:
            files.private_directory(self._manifest.parent)
            files.write(self._manifest, data, files.PRIVATE)

    def _remove(self, path: str) -> None:
        place = self._at(path)
        place.unlink(missing_ok=True)
        if place.parent.name.endswith(".d") and place.parent.name != "tmpfiles.d":
            with suppress(OSError):  # a drop-in of somebody else's is in it
                place.parent.rmdir()

    def _digest(self, path: str) -> str | None:
        data = files.read(self._at(path))
        return None if data is None else hashlib.sha256(data).hexdigest()

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
