"""`lbha apply` and `lbha rollback`: what a node should run, carried out as one transaction.

    report = apply(cluster, node, config_digest)

One at a time ({state_dir}/lock). Needs root.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lbha import discovery, engine, files, host, listen, nftables, render, trackers
from lbha.engine import Engine
from lbha.errors import ApplyError, LbhaError
from lbha.haproxy import Haproxy
from lbha.haproxy_text import EMPTY_STATE
from lbha.history import Entry, Manifest
from lbha.keepalived import Keepalived
from lbha.model import Cluster, Kind, Mode, Node, Paths, Pool, Pools, Rendered
from lbha.nftables import Nftables
from lbha.redirect import Redirect
from lbha.transaction import DidNotRunError, Plan, Step, Transaction, Wanted


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A service's backends, by address:port. `before` is None where no earlier apply told."""

    service: str
    before: tuple[str, ...] | None
    now: tuple[str, ...]
    age: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. `result`: "applied", "unchanged", "held", or "planned" for a dry run.

    `redirects` are in force afterwards; `held` says since which rollback and what would end it; `diff` is only
    there in a dry run.
    """

    result: str
    steps: tuple[Step, ...] = ()
    pools: tuple[PoolChange, ...] = ()
    held: str | None = None
    diff: str | None = None
    redirects: tuple[Redirect, ...] = ()


def apply(
    cluster: Cluster,
    node: Node,
    config: str,
    *,
    pools: Pools | None = None,
    force: bool = False,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Discover, render and lay; `config` is the sha256 of lbha.toml, `clock` seconds since the epoch.

    `pools` are the backends, where the caller has discovered them already.

    A `dry_run` tells what would change, validates it, and changes nothing. After a rollback nothing is done
    for the same lbha.toml without `force`. Raises LbhaError with everything as it was.
    """
    state_dir = Path(cluster.paths.state_dir)
    with _refusing(), contextlib.nullcontext() if dry_run else _locked(state_dir):
        transaction = _transaction(cluster.paths)
        held = None if force else _held(state_dir, config)
        if held and not dry_run:
            pending = transaction.history.pending()
            if pending is None:
                return Report("held", held=held)
            if pending.manifest.rollback:  # killed: complete it
                beside = _beside(cluster.paths, pending.manifest)
                plan = transaction.plan(Wanted(pending.files, beside, pending.manifest))
                return Report("applied", transaction.carry_out(plan, _utc(clock())), held=held)
            # Otherwise an `apply --force` was killed: what follows completes that.
        if pools is None:
            pools = discovery.discover(cluster, state_dir / "discovery", keep=not dry_run)
        created = _utc(clock())
        if cluster.health.mode is Mode.AGENT and not dry_run:
            trackers.prepare(Path(cluster.paths.run_dir))
        redirects = listen.find_redirects(cluster)
        plan = transaction.plan(_wanted(cluster, node, pools, redirects, config, created))
        changes = _pool_changes(pools, plan.newest)
        if not plan.idle and not force:
            from lbha.doctor import before_apply

            before_apply.prove(cluster, node)
        if dry_run:
            if not plan.idle:
                with tempfile.TemporaryDirectory(prefix="lbha-") as staging:
                    transaction.prove(plan, Path(staging))
            diff = _diff(plan, cluster.paths)
            return Report("planned", transaction.steps(plan), changes, held, diff, redirects)
        refused = state_dir / "refused"
        if not plan.idle and not force and (problem := _refused(refused, plan.wanted)):
            raise ApplyError(
                f"this configuration was put back before ({problem}) and is not tried again, since each try "
                "reloads: change lbha.toml or the template, or use --force"
            )
        try:
            steps = transaction.carry_out(plan, created)
        except DidNotRunError as error:
            with contextlib.suppress(OSError):
                files.write(refused, f"{_fingerprint(plan.wanted)}\n{error.reason}".encode(), files.PRIVATE)
            raise
        refused.unlink(missing_ok=True)
        _held_file(state_dir).unlink(missing_ok=True)
        return Report("unchanged" if plan.idle else "applied", steps, changes, redirects=redirects)


def rollback(
    cluster: Cluster, config: str, steps: int = 1, *, clock: Callable[[], float] = time.time
) -> Report:
    """Lay the configuration that was in force `steps` before the present one, through the same transaction.

    From then on `apply` holds still until lbha.toml changes, or the timer would undo it.
    """
    state_dir = Path(cluster.paths.state_dir)
    with _refusing(), _locked(state_dir):
        transaction = _transaction(cluster.paths)
        entries = transaction.entries()
        if steps >= len(entries):
            raise ApplyError(
                f"there is no configuration {steps} before the present one, the history holds {len(entries)}; "
                "see lbha rollback --list"
            )
        chosen = entries[-1 - steps]
        created = _utc(clock())
        # The certificates of then, by the paths that lbha.toml had then.
        manifest = msgspec.structs.replace(
            chosen.manifest,
            origin=f"rollback to {chosen.name}",
            created=created,
            tls=_tls_digest(chosen.manifest.reads),
        )
        # A file that did not exist then stays as it is now, and in the books.
        beside = _beside(cluster.paths, manifest)
        contents = {name: data for name, data in entries[-1].files.items() if name != nftables.FILE}
        contents = nftables.with_absent(cluster.paths, {**contents, **chosen.files})
        wanted = Wanted(contents, beside, manifest)
        plan = transaction.plan(wanted)
        hold = _held_file(state_dir)
        held_before = files.read(hold)
        # First: killed half-way, the next apply completes the rollback, and never undoes it.
        files.write(hold, config.encode(), files.PRIVATE)
        try:
            done = transaction.carry_out(plan, created)
        except (OSError, LbhaError):
            if held_before is None:
                hold.unlink()
            else:
                files.write(hold, held_before, files.PRIVATE)
            raise
        return Report("unchanged" if plan.idle else "applied", done, held=_held(state_dir, config))


def history(cluster: Cluster) -> list[Entry]:
    """The configurations that can be put back, oldest first; the last one is in force."""
    with _refusing():
        return _transaction(cluster.paths).entries()


def _transaction(paths: Paths) -> Transaction:
    # haproxy first: the VIP should not come before haproxy can serve behind it.
    engines: Sequence[Engine] = (Haproxy(paths), Nftables(paths), Keepalived(paths))
    return Transaction(engines, Rendered.targets(paths), Path(paths.state_dir))


def _wanted(
    cluster: Cluster, node: Node, pools: Pools, redirects: Sequence[Redirect], config: str, created: str
) -> Wanted:
    interface = host.interface_of(cluster, node)
    if interface is None:
        raise ApplyError(
            f"{node.name} has the address {node.address}, which is on no interface of this host; bring it up, "
            "or correct [nodes] or --node"
        )
    real_time = Keepalived(cluster.paths).survives_real_time()
    rendered = render.render(
        cluster, node, pools, interface, redirects=redirects, load_state=True, real_time=real_time
    )
    reads, pairs = _tls_files(cluster)
    manifest = Manifest(
        "apply",
        created,
        config,
        _tls_digest(reads),
        {name: _addresses(pool) for name, pool in sorted(pools.items())},
        reads,
        pairs,
        [redirect.service for redirect in redirects],
    )
    contents = {name: text.encode() for name, text in rendered.files.items()}
    return Wanted(nftables.with_absent(cluster.paths, contents), _beside(cluster.paths, manifest), manifest)


def _tls_files(cluster: Cluster) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """`Manifest.reads` and `Manifest.pairs` for this lbha.toml."""
    reads: dict[str, str] = {}
    pairs: dict[str, tuple[str, str]] = {}
    made_here = f"{cluster.paths.state_dir}/tls/"
    for service in cluster.services:
        if service.tls is None or service.kind is Kind.TCP:
            continue
        prefix = f"services.{service.name}.tls"
        for key in ("ca", "cert", "key"):
            if path := getattr(service.tls, key):
                reads[f"{prefix}.{key}"] = path
        crt = render.haproxy_crt(service, cluster.paths)
        if crt and crt.startswith(made_here):
            pairs[crt] = (f"{prefix}.cert", f"{prefix}.key")
    return reads, pairs


def _beside(paths: Paths, manifest: Manifest) -> dict[Path, bytes]:
    """The files that haproxy.cfg refers to and lbha makes: the state file, certificates with their keys."""
    found = {Path(render.state_file(paths)): EMPTY_STATE.encode()}
    for crt, pair in manifest.pairs.items():
        found[Path(crt)] = b"\n".join(_tls_file(key, manifest.reads[key]) for key in pair)
    return found


def _tls_digest(reads: Mapping[str, str]) -> str:
    """Of every TLS file that haproxy reads when it loads; empty when there is none.

    A certificate that was replaced under the same name needs a reload although haproxy.cfg is the same.
    """
    digest = hashlib.sha256()
    for key, path in reads.items():
        digest.update(hashlib.sha256(_tls_file(key, path)).digest())
    return digest.hexdigest() if reads else ""


def _tls_file(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ApplyError(f'{key} = "{path}": {error.strerror or error}') from None


def _pool_changes(pools: Pools, newest: Entry | None) -> tuple[PoolChange, ...]:
    changes = []
    for name, pool in sorted(pools.items()):
        before = newest.manifest.pools.get(name) if newest else None
        changes.append(
            PoolChange(
                name,
                None if before is None else tuple(before),
                tuple(_addresses(pool)),
                pool.age,
                pool.error,
            )
        )
    return tuple(changes)


def _addresses(pool: Pool) -> list[str]:
    return [str(backend.endpoint) for backend in sorted(pool.backends, key=lambda each: each.endpoint.sort_key)]


def _diff(plan: Plan, paths: Paths) -> str:
    lines: list[str] = []
    targets = Rendered.targets(paths)
    for name in plan.wanted.files:
        path = targets[name]
        old, new = plan.on_disk[name] or b"", plan.wanted.files[name]
        lines += difflib.unified_diff(
            old.decode("utf-8", "replace").splitlines(),
            new.decode("utf-8", "replace").splitlines(),
            str(path),
            f"{path} (rendered)",
            lineterm="",
        )
    return "".join(f"{line}\n" for line in lines)


def _held_file(state_dir: Path) -> Path:
    return state_dir / "held"


def _held(state_dir: Path, config: str) -> str | None:
    if files.read(_held_file(state_dir)) != config.encode():
        return None
    return "rolled back from this lbha.toml: change it, or use --force"


def _fingerprint(wanted: Wanted) -> str:
    digest = hashlib.sha256(wanted.manifest.tls.encode())
    for name, data in sorted(wanted.files.items()):
        digest.update(name.encode() + hashlib.sha256(data).digest())
    return digest.hexdigest()


def _refused(path: Path, wanted: Wanted) -> str | None:
    """Why this very configuration did not run when it was tried; None when it was not."""
    fingerprint, _, problem = (files.read(path) or b"").decode("utf-8", "replace").partition("\n")
    return problem if fingerprint == _fingerprint(wanted) else None


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    with files.lock(files.private_directory(state_dir) / "lock"):
        yield


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """A full disk, a missing or read-only directory: told in one line. All were met before anything changed."""
    try:
        yield
    except PermissionError as error:
        raise ApplyError(f"{engine.one_line(error)}; run it as root") from None
    except OSError as error:
        raise ApplyError(f"{engine.one_line(error)}; nothing was changed") from None


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
