"""What manifests, kubeconfigs and command lines say of the way to the apiserver and to etcd. Pure.

YAML is read with `safe_load`: what stands in /etc/kubernetes is data, not code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from lbha.model import Kind


class Unreadable(Exception):
    """A file that is there and tells nothing; the reason in one line."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program as it runs, or as a static pod will start it. `source` says where that was found."""

    program: str
    flags: Mapping[str, str]
    environment: Mapping[str, str]
    source: str


@dataclass(frozen=True, slots=True)
class Contact:
    """Where one client looks for a service. `in_cluster`: told so by Kubernetes, the `kubernetes` service."""

    client: str
    kind: Kind
    urls: tuple[str, ...]
    source: str
    in_cluster: bool = False


Read = Callable[[str], str]
"""A file's text, by the path that the program itself uses. Raises Unreadable."""

PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "flanneld",
    "etcd",
)
"""What speaks with the apiserver or with etcd on a node, and etcd itself."""

KUBECONFIGS = {
    "kubelet": "kubelet",
    "bootstrap-kubelet": "bootstrap-kubelet",
    "kube-proxy": "kube-proxy",
    "controller-manager": "kube-controller-manager",
    "scheduler": "kube-scheduler",
    "admin": "admin",
    "super-admin": "super-admin",
}
"""/etc/kubernetes/NAME.conf, as kubeadm and others call them, and whose it is."""


def command(argv: Sequence[str], environment: Mapping[str, str], source: str) -> Command | None:
    """A command line of one of PROGRAMS; None for any other."""
    program = PurePosixPath(argv[0]).name if argv else ""
    if program not in PROGRAMS:
        return None
    return Command(program, _flags(argv[1:]), environment, source)


def commands_of_manifest(text: str, source: str) -> list[Command]:
    """The programs of a static pod. Raises Unreadable."""
    spec = _mapping(_yaml(text), "a pod").get("spec")
    found = []
    for container in _list(_mapping(spec, "a pod").get("containers")):
        each = _mapping(container, "a pod")
        argv = [str(word) for word in [*_list(each.get("command")), *_list(each.get("args"))]]
        variables = {
            str(entry.get("name")): str(entry.get("value", ""))
            for entry in _list(each.get("env"))
            if isinstance(entry, dict)
        }
        known = command(argv, variables, source)
        if known is not None:
            found.append(known)
    return found


def server(text: str) -> str:
    """The `server:` of a kubeconfig's current context. Raises Unreadable."""
    document = _mapping(_yaml(text), "a kubeconfig")
    current = _named(document, "contexts", document.get("current-context"), "context")
    cluster = _named(document, "clusters", current.get("cluster") if current else None, "cluster")
    found = cluster.get("server") if cluster else None
    if not isinstance(found, str) or not found:
        raise Unreadable("no kubeconfig: its current context names no server")
    return found


def contacts(each: Command, read: Read) -> Iterator[Contact]:
    """Where that program looks. Raises Unreadable for a file that its command line names."""
    flags = each.flags
    if each.program == "kube-apiserver":
        yield from _contact(each, Kind.ETCD, flags.get("etcd-servers", ""))
    elif each.program == "flanneld":
        yield from _flannel(each, read)
    elif each.program != "etcd":
        yield from _contact(each, Kind.KUBE_APISERVER, flags.get("master", "") or _server(each, read))


def _flannel(each: Command, read: Read) -> Iterator[Contact]:
    def given(flag: str) -> str:
        return each.flags.get(flag, "") or each.environment.get(f"FLANNELD_{_upper(flag)}", "")

    if given("kube-subnet-mgr") in ("", "false"):
        yield from _contact(each, Kind.ETCD, given("etcd-endpoints"))
        return
    url = given("kube-api-url")
    if not url and given("kubeconfig-file"):
        url = server(read(given("kubeconfig-file")))
    if url:
        yield from _contact(each, Kind.KUBE_APISERVER, url)
    elif host := each.environment.get("KUBERNETES_SERVICE_HOST", ""):
        port = each.environment.get("KUBERNETES_SERVICE_PORT", "443")
        url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        yield Contact(each.program, Kind.KUBE_APISERVER, (url,), each.source, in_cluster=True)


def _server(each: Command, read: Read) -> str:
    """By --kubeconfig, or by the one that --config names; empty for a program inside a cluster."""
    kubeconfig = each.flags.get("kubeconfig", "")
    if not kubeconfig and each.program != "kubelet" and each.flags.get("config"):
        document = _mapping(_yaml(read(each.flags["config"])), "a configuration")
        kubeconfig = str(_mapping(document.get("clientConnection") or {}, "a mapping").get("kubeconfig") or "")
    return server(read(kubeconfig)) if kubeconfig else ""


def _contact(each: Command, kind: Kind, urls: str) -> Iterator[Contact]:
    listed = tuple(url.strip() for url in urls.split(",") if url.strip())
    if listed:
        yield Contact(each.program, kind, listed, each.source)


@dataclass(frozen=True, slots=True)
class Advertised:
    """What an etcd member tells clients and other members of itself."""

    urls: tuple[str, ...]
    certificate: str
    source: str


def etcd_member(values: Mapping[str, str], source: str) -> Advertised:
    """By ETCD_ variables."""
    keys = ("ADVERTISE_CLIENT_URLS", "INITIAL_ADVERTISE_PEER_URLS")
    urls = ",".join(values.get(f"ETCD_{key}", "") for key in keys).split(",")
    listed = tuple(url.strip() for url in urls if url.strip())
    return Advertised(listed, values.get("ETCD_CERT_FILE", ""), source)


def etcd_command(each: Command) -> Advertised:
    """By its flags, which go before its environment."""
    values = dict(each.environment) | {f"ETCD_{_upper(flag)}": value for flag, value in each.flags.items()}
    return etcd_member(values, each.source)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What kube-apiserver or etcd shows its clients: the addresses and names in it."""

    program: str
    names: frozenset[str]
    source: str


@dataclass(frozen=True, slots=True)
class Found:
    """All that is on a node. `problems`: (file, why it tells nothing)."""

    contacts: tuple[Contact, ...] = ()
    etcd: tuple[Advertised, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


def _flags(words: Sequence[str]) -> dict[str, str]:
    """`--flag=value`, `--flag value`, and `-flag` as Go's own parser takes it."""
    found: dict[str, str] = {}
    for index, word in enumerate(words):
        if not word.startswith("-") or word in ("-", "--"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        following = words[index + 1] if index + 1 < len(words) else "-"
        found[name] = value if equals else "true" if following.startswith("-") else following
    return found


def _upper(flag: str) -> str:
    return flag.upper().replace("-", "_")


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise Unreadable(
            f"not YAML{where}: {getattr(error, 'problem', None) or type(error).__name__}"
        ) from None


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"not {what}")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(document: dict[Any, Any], section: str, name: Any, inner: str) -> dict[Any, Any] | None:
    """The entry of that name in a kubeconfig's list."""
    for entry in _list(document.get(section)):
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(inner), dict):
            return dict(entry[inner])
    return None
