"""Reads what is on a node: files below a root, and the processes that run. Whatever cannot be read is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from lbha.discovery.etcd_env import parse_env
from lbha.discovery.source import read_file
from lbha.errors import DiscoveryError
from lbha.model import Kind
from lbha.wiring.found import (
    KUBECONFIGS,
    PROGRAMS,
    Advertised,
    Certificate,
    Command,
    Contact,
    Found,
    Unreadable,
    command,
    commands_of_manifest,
    contacts,
    etcd_command,
    etcd_member,
    server,
)

_MAX_BYTES = 1 << 20

_CERTIFICATES = {
    "kube-apiserver": "etc/kubernetes/pki/apiserver.crt",
    "etcd": "etc/kubernetes/pki/etcd/server.crt",
}
"""kubeadm's, where no command line names another."""


class Node:
    """One node's files below `root`, and with `processes` what runs on this very host."""

    def __init__(self, root: Path, *, processes: bool) -> None:
        self._root, self._processes = root, processes
        self._contacts: list[Contact] = []
        self._etcd: list[Advertised] = []
        self._certificates: dict[tuple[str, Path], Certificate] = {}
        self._problems: dict[str, str] = {}

    def look(self) -> Found:
        """All of it."""
        for path in self._files("etc/kubernetes", ".conf"):
            # One of another name need not be a kubeconfig.
            with self._noting(path) if path.stem in KUBECONFIGS else suppress(Unreadable):
                client = KUBECONFIGS.get(path.stem, path.stem)
                self._contacts.append(Contact(client, Kind.KUBE_APISERVER, (server(_read(path)),), str(path)))
        for path in self._files("etc/kubernetes/manifests", ".yaml"):
            with self._noting(path):
                for each in commands_of_manifest(_read(path), str(path)):
                    self._command(each, self._root)
        environment = self._root / "etc/default/etcd"
        if _there(environment):
            with self._noting(environment):
                self._member(_environment(environment), self._root)
        for process, root in running() if self._processes else ():
            self._command(process, root)
        for program, default in _CERTIFICATES.items():
            if not any(each == program for each, _ in self._certificates) and _there(self._root / default):
                self._certificate(program, self._root / default)
        certificates = tuple(self._certificates.values())
        return Found(tuple(self._contacts), tuple(self._etcd), certificates, tuple(self._problems.items()))

    def _command(self, each: Command, root: Path) -> None:
        def read(path: str) -> str:
            try:
                return _read(_below(root, path))
            except Unreadable as error:
                raise Unreadable(f"{path}: {error}") from None

        with self._noting(each.source):
            self._contacts += contacts(each, read)
        certificate = each.flags.get("tls-cert-file")
        if each.program == "kube-apiserver" and certificate:
            self._certificate(each.program, _below(root, certificate))
        if each.program == "etcd":
            self._member(etcd_command(each), root)

    def _member(self, member: Advertised, root: Path) -> None:
        if member.urls:
            self._etcd.append(member)
        if member.certificate:
            self._certificate("etcd", _below(root, member.certificate))

    def _certificate(self, program: str, path: Path) -> None:
        with self._noting(path):
            self._certificates[program, path] = Certificate(program, _names(path), str(path))

    def _files(self, directory: str, suffix: str) -> list[Path]:
        """Those of that ending in a directory, which need not be there."""
        at = self._root / directory
        try:
            return sorted(path for path in at.iterdir() if path.suffix == suffix)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._problems[str(at)] = error.strerror or str(error)
            return []

    @contextmanager
    def _noting(self, file: Path | str) -> Iterator[None]:
        """One line for a file that tells nothing, and on to the next."""
        try:
            yield
        except Unreadable as error:
            self._problems[str(file)] = str(error)


@cache
def resolve(name: str) -> tuple[str, ...]:
    """As this host resolves it; nothing when it does not."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def running() -> Iterator[tuple[Command, Path]]:
    """The programs of this host that matter, each with the root of the files that it sees.

    Only those of this network namespace: in another one the VIP would be another one's.
    """
    import psutil

    own = _network(os.getpid())
    for process in psutil.process_iter(["pid", "cmdline"]):
        argv, pid = process.info["cmdline"] or [], process.info["pid"]
        if not argv or Path(argv[0]).name not in PROGRAMS or _network(pid) not in (own, None):
            continue
        try:
            environment = process.environ()
        except psutil.Error:
            environment = {}
        found = command(argv, environment, f"process {pid}")
        if found is not None:
            yield found, Path(f"/proc/{pid}/root")


def _network(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def _environment(path: Path) -> Advertised:
    try:
        return etcd_member(parse_env(_read(path)), str(path))
    except DiscoveryError as error:
        raise Unreadable(str(error)) from None


def _there(path: Path) -> bool:
    """Also where this user may not look: reading it will say so."""
    try:
        return path.exists()
    except OSError:
        return True


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _read(path: Path) -> str:
    try:
        return read_file(str(path), _MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise Unreadable("not text") from None


def _names(path: Path) -> frozenset[str]:
    """The addresses and names that a certificate carries. Raises Unreadable."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(_read(path).encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    except ValueError:
        raise Unreadable("not a certificate in PEM") from None
    return frozenset(str(each.value) for each in names)
