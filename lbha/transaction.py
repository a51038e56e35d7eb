"""Laying a configuration so that nothing breaks half-way: compare, prove, keep a copy, lay, reload, verify,
and otherwise put back what was there. Knows engines only by their common shape.

Killed at any instant the files are old or new, whole and valid; the next run sees from the pending entry
and from what the daemons run what is left to do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbha import engine, files
from lbha.engine import Engine, Running
from lbha.errors import ApplyError, EngineError, LbhaError
from lbha.files import PRIVATE, Access
from lbha.history import Entry, History, Manifest

ACCESS = {"haproxy.cfg": Access(0o640, "haproxy"), "keepalived.conf": PRIVATE, "lbha.nft": PRIVATE}


class DidNotRunError(ApplyError):
    """A configuration was laid and did not run. `reason` is why, without what became of it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class RolledBackError(DidNotRunError):
    """A configuration was laid, did not run, and what was there before is back."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A configuration to lay. A file that `files` does not name is left alone.

    `beside` are files that haproxy.cfg refers to and lbha itself makes, by their path.
    """

    files: Mapping[str, bytes]
    beside: Mapping[Path, bytes]
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one engine, in `ms`.

    `action`: "unchanged", "laid" (it does not run), "adjusted" (haproxy, without a reload), "reloaded".
    """

    engine: str
    action: str
    path: str
    running: bool
    digest: str | None
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a transaction will do, from one look at disk, history and daemons.

    `good` is what to put back: what is on disk, but for files that a killed apply left unproven. `tell` says
    how an engine will come to run its file: "adjusted" or "reloaded".
    """

    wanted: Wanted
    on_disk: Mapping[str, bytes | None]
    good: Mapping[str, bytes | None]
    beside_on_disk: Mapping[Path, bytes | None]
    running: Mapping[str, Running | None]
    lay: frozenset[str]
    tell: Mapping[str, str]
    found: Mapping[str, bytes]
    newest: Entry | None
    pending: Entry | None

    @property
    def idle(self) -> bool:
        """Nothing to lay, nothing beside it that has not been proved, and nobody to tell."""
        return not self.lay and not self.tell and self.beside_on_disk == self.wanted.beside


class Transaction:
    """The node's engines, where their files belong, and where lbha keeps its own."""

    def __init__(self, engines: Sequence[Engine], targets: Mapping[str, Path], state_dir: Path) -> None:
        self._engines = engines
        self._targets = targets
        self._state_dir = state_dir
        self.history = History(state_dir / "history")

    def entries(self) -> list[Entry]:
        """What was in force, oldest first. The last is `pending` where a killed apply has laid its files."""
        entries, pending = self.history.entries(), self.history.pending()
        if pending and entries:
            newest = entries[-1].files
            lies = {name: files.read(path) for name, path in self._targets.items()}
            if any(data == lies[name] and data != newest.get(name) for name, data in pending.files.items()):
                entries.append(pending)
        return entries

    def plan(self, wanted: Wanted) -> Plan:
        """Look, and change nothing. EngineError when a daemon runs but cannot be driven."""
        on_disk = {name: files.read(self._targets[name]) for name in wanted.files}
        entries, pending = self.history.entries(), self.history.pending()
        newest = entries[-1] if entries else None
        unproven = {
            name for name, data in on_disk.items() if pending is not None and data == pending.files.get(name)
        }
        known = [*entries, pending] if pending else entries
        running = {each.name: each.running() for each in self._engines}
        lay = {name for name, data in wanted.files.items() if on_disk[name] != data}
        good = {
            name: (newest.files.get(name) if newest else None) if name in unproven else data
            for name, data in on_disk.items()
        }
        unknown = any(
            data is not None and all(data != entry.files.get(name) for entry in known)
            for name, data in on_disk.items()
        )
        tell: dict[str, str] = {}
        for each in self._engines:
            now = running[each.name]
            if now is None or each.file not in wanted.files:
                continue
            text = _text(wanted.files[each.file])
            digest = engine.digest_in(text)
            stale = not each.runs(now, text) if digest else each.file in unproven
            rotated = each.name == "haproxy" and newest is not None and _rotated(newest.manifest, wanted)
            if each.file in lay or stale or rotated:
                live = digest and not rotated and each.adjustable(now, text)
                tell[each.name] = "adjusted" if live else "reloaded"
        return Plan(
            wanted=wanted,
            on_disk=on_disk,
            good=good,
            beside_on_disk={path: files.read(path) for path in wanted.beside},
            running=running,
            lay=frozenset(lay),
            tell=tell,
            # All, or a rollback would put one back beside another that was not there with it.
            found={name: data for name, data in good.items() if data is not None} if unknown else {},
            newest=newest,
            pending=pending,
        )

    def prove(self, plan: Plan, staging: Path) -> None:
        """Have each engine read its file in `staging`, and see that it can run. EngineError, OSError.

        What lies beside haproxy.cfg is staged too, so that bad certificates never reach their place.
        """
        files.private_directory(staging)
        moved: dict[bytes, bytes] = {}
        for number, (path, data) in enumerate(plan.wanted.beside.items()):
            staged = staging / f"{number}-{path.name}"
            files.write(staged, data, PRIVATE)
            moved[str(path).encode()] = str(staged).encode()
        for each in self._engines:
            if each.file not in plan.wanted.files:
                continue
            text = plan.wanted.files[each.file]
            read_here = text
            for real, stand_in in moved.items():
                read_here = read_here.replace(real, stand_in)
            files.write(staging / each.file, read_here, PRIVATE)
            # First, because it says more: keepalived only says that it disables a script.
            each.preflight(_text(text), plan.running[each.name])
            each.validate(staging / each.file)

    def carry_out(self, plan: Plan, created: str) -> tuple[Step, ...]:
        """Do it. Raises LbhaError or OSError with nothing changed, RolledBackError with all put back."""
        if plan.idle:
            self._settle(plan)
            return self.steps(plan)
        self.prove(plan, self._state_dir / "staging")
        if plan.found:
            self.history.begin(plan.found, Manifest("found", created))
            self.history.commit()
        self.history.begin(plan.wanted.files, plan.wanted.manifest)
        told: list[Engine] = []
        done: dict[str, tuple[str, float]] = {}
        try:
            self._lay(plan)
            for each in self._engines:
                if each.name in plan.tell:
                    told.append(each)
                    start = time.perf_counter()
                    text = _text(plan.wanted.files[each.file])
                    action = _tell(each, text, adjust=plan.tell[each.name] == "adjusted")
                    done[each.name] = action, (time.perf_counter() - start) * 1000
        except (OSError, LbhaError) as error:
            self._put_back(plan, told, engine.one_line(error))
        same_files = (
            plan.newest is not None
            and not plan.found
            and plan.newest.files == plan.wanted.files
            and plan.newest.manifest.reads == plan.wanted.manifest.reads
        )
        # It runs: books that cannot be closed are no failure, and the pending entry tells the next run.
        with contextlib.suppress(OSError):
            self.history.commit(replace=same_files)
        return self.steps(plan, done)

    def steps(self, plan: Plan, done: Mapping[str, tuple[str, float]] | None = None) -> tuple[Step, ...]:
        """What was done (`done`: how each engine was told, in how many ms), or what the plan would do."""
        steps = []
        for each in self._engines:
            data = plan.wanted.files.get(each.file)
            if data is None and each.absent is not None:
                continue
            running = plan.running[each.name]
            action = "unchanged"
            ms = None
            if done and each.name in done:
                action, ms = done[each.name]
            elif each.name in plan.tell:
                action = plan.tell[each.name]
            elif each.file in plan.lay:
                action = "laid"
            digest = engine.digest_in(_text(data)) if data is not None else None
            path = str(self._targets[each.file])
            steps.append(Step(each.name, action, path, running is not None, digest, ms))
        return tuple(steps)

    def _settle(self, plan: Plan) -> None:
        """Finish what a killed apply left to the books, and note files that were laid by other means."""
        self._write_beside(plan.wanted.beside, plan.beside_on_disk)
        if plan.newest is None or plan.newest.files != plan.wanted.files:
            self.history.begin(plan.wanted.files, plan.wanted.manifest)
            self.history.commit()
        elif plan.pending is not None:
            self.history.abort()

    def _lay(self, plan: Plan) -> None:
        prepared: dict[str, Path] = {}
        try:
            for name in sorted(plan.lay):
                prepared[name] = files.prepare(self._targets[name], plan.wanted.files[name], ACCESS[name])
            self._write_beside(plan.wanted.beside, plan.beside_on_disk)
        except OSError:
            for path in prepared.values():
                path.unlink(missing_ok=True)
            raise
        for name, path in prepared.items():
            files.commit(path, self._targets[name])

    def _write_beside(self, wanted: Mapping[Path, bytes], on_disk: Mapping[Path, bytes | None]) -> None:
        for path, data in wanted.items():
            if on_disk[path] != data:
                files.private_directory(path.parent)
                files.write(path, data, PRIVATE)

    def _put_back(self, plan: Plan, told: Sequence[Engine], reason: str) -> None:
        """Lay the good files again and tell those who were told. Always raises."""
        problems: list[str] = []
        before = [(path, data, PRIVATE) for path, data in plan.beside_on_disk.items()]
        # All, not only what was laid now: a killed apply may have laid what fails.
        before += [(self._targets[name], plan.good[name], ACCESS[name]) for name in sorted(plan.good)]
        for path, data, access in before:
            try:
                if files.read(path) == data:
                    continue
                if data is None:
                    path.unlink()
                else:
                    files.write(path, data, access)
            except OSError as error:
                problems.append(engine.one_line(error))
        for each in told:
            good = plan.good[each.file]
            text = each.absent if good is None else _text(good)
            if text is None:
                continue
            try:
                _tell(each, text, adjust=plan.tell[each.name] == "adjusted")
            except (OSError, EngineError) as error:
                problems.append(engine.one_line(error))
        if problems:
            message = f"{reason}; putting back what was there failed as well: {'; '.join(problems)}"
            raise DidNotRunError(message, reason) from None
        self.history.abort()
        if told:
            names = " and ".join(each.name for each in told)
            message = f"{reason}; the files before are back and {names} runs them"
            raise RolledBackError(message, reason) from None
        raise ApplyError(f"{reason}; nothing was changed") from None


def _tell(each: Engine, text: str, *, adjust: bool) -> str:
    """Make it run what lies in its place, without a reload where `adjust` allows it; how that was done."""
    if adjust and each.adjust(text):
        return "adjusted"
    each.reload(text)
    return "reloaded"


def _rotated(manifest: Manifest, wanted: Wanted) -> bool:
    return manifest.tls not in ("", wanted.manifest.tls)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
