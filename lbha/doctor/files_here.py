"""Files and sockets: who may change what root acts upon, who may read keys, and room on the disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lbha.doctor.context import Context
from lbha.doctor.model import Finding, NotChecked, Severity

LITTLE, NOTHING = 64 << 20, 4 << 20
"""Bytes free below which it is a warning, an error. A history of ten configurations takes some 100 KB."""

_INODES = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """One file, socket or directory. `what`: "acts" (root acts upon its content), "secret" (a key), "socket"
    (who may write to it commands a daemon)."""

    path: str
    what: str
    mode: int
    uid: int
    gid: int


def file_modes(context: Context) -> Iterator[Finding]:
    """Everything that lbha.toml names, and lbha.toml."""
    cluster, paths = context.cluster, context.cluster.paths
    acts = [
        str(context.config_file.absolute()),
        paths.haproxy_cfg,
        paths.keepalived_conf,
        paths.state_dir,
        paths.run_dir,
    ]
    acts += [cluster.templates] if cluster.templates else []
    secrets = [service.tls.key for service in cluster.services if service.tls and service.tls.key]
    secrets += [service.token_file for service in cluster.services if service.token_file]
    secrets.append(cluster.peers.key)
    sockets = [paths.haproxy_socket, paths.haproxy_master_socket, f"{paths.run_dir}/agent.sock"]
    found = [*_seen(acts, "acts"), *_seen(secrets, "secret"), *_seen(sockets, "socket")]
    yield from judge_modes(found)


def judge_modes(found: Iterable[Seen]) -> Iterator[Finding]:
    """By owner and mode."""
    for each in found:
        if trap := _trap(each):
            severity, harm, cure = trap
            mode = f"mode {each.mode & 0o7777:o}, uid {each.uid}, gid {each.gid}"
            yield Finding("file-modes", severity, f"{each.path} ({mode}){harm}", cure)


def _trap(each: Seen) -> tuple[Severity, str, str] | None:
    """How bad it is, why, and the cure. A group of root's (gid 0) is root."""
    others = each.mode & (stat.S_IRWXO | (stat.S_IRWXG if each.gid else 0))
    writable, readable = others & (stat.S_IWOTH | stat.S_IWGRP), others & (stat.S_IROTH | stat.S_IRGRP)
    if each.what == "acts" and (each.uid != 0 or writable):
        harm = " may be changed by others than root, and root does what it says"
        return Severity.ERROR, harm, f"chown root:root {each.path}; chmod go-w {each.path}"
    if each.what == "secret" and readable:
        return Severity.WARNING, ", a key, may be read by others than root", f"chmod 600 {each.path}"
    if each.what == "socket" and writable:
        harm = ": others than root may take servers out of the pools and end sessions"
        cure = "mode 600: in haproxy.cfg for the admin socket, -S PATH,mode,600 for the master's"
        return Severity.ERROR, harm, cure
    return None


def _seen(paths: Iterable[str], what: str) -> Iterator[Seen]:
    for path in dict.fromkeys(paths):
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            continue
        except PermissionError:
            raise NotChecked(f"{path}: only root may look") from None
        yield Seen(path, what, status.st_mode, status.st_uid, status.st_gid)


def disk(context: Context) -> Iterator[Finding]:
    """Room where the state is kept, and where the daemons' files lie."""
    paths = context.cluster.paths
    seen: set[int] = set()
    for path in (
        paths.state_dir,
        str(Path(paths.haproxy_cfg).parent),
        str(Path(paths.keepalived_conf).parent),
        paths.run_dir,
    ):
        where = _existing(Path(path))
        device = where.stat().st_dev
        if device not in seen:
            seen.add(device)
            found = os.statvfs(where)
            yield from judge_room(
                path,
                found.f_bavail * found.f_frsize,
                found.f_favail if found.f_files else None,
                read_only=bool(found.f_flag & os.ST_RDONLY),
            )


def judge_room(path: str, free: int, inodes: int | None, *, read_only: bool) -> Iterator[Finding]:
    """`free` bytes; `inodes` free, None where the file system has no bound."""
    cure = f"make room: df -h {path}; du -xh / | sort -h | tail"
    if read_only:
        yield Finding(
            "disk",
            Severity.ERROR,
            f"{path} is on a read-only file system: nothing can be applied, a drain is not kept",
            "journalctl -k tells why; mount -o remount,rw",
        )
    elif free < LITTLE:
        severity = Severity.ERROR if free < NOTHING else Severity.WARNING
        yield Finding("disk", severity, f"{path} has {free / (1 << 20):.1f} MiB free", cure)
    elif inodes is not None and inodes < _INODES:
        yield Finding("disk", Severity.ERROR, f"{path} has room for {inodes} more files", cure)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
