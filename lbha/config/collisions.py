"""No two things share a file: what lbha writes must not lie where it, or an engine, reads or listens."""

from __future__ import annotations

from collections.abc import Iterator

from lbha.config.document import Document
from lbha.model import Cluster

_DIRECTORIES = ("paths.state_dir", "paths.run_dir")


def refuse_collisions(document: Document, cluster: Cluster) -> None:
    """Raises ConfigError when a path of `[paths]` is another's, lies below one that is a file, or is read
    from elsewhere in the document (a CA in the place of haproxy.cfg would be overwritten)."""
    taken: dict[str, str] = {}
    for field in cluster.paths.__dataclass_fields__:
        key, value = f"paths.{field}", getattr(cluster.paths, field)
        if value in taken:
            document.fail(key, value, f"already taken by {taken[value]}", "give each its own")
        taken[value] = key
    files = {value: key for value, key in taken.items() if key not in _DIRECTORIES}
    read = tuple(_read(cluster))
    for key, value in (*((key, value) for value, key in taken.items()), *read):
        for parent in _parents(value):
            if parent in files:
                document.fail(key, value, f"lies below {files[parent]}, a file", "choose another path")
    made = f"{cluster.paths.state_dir}/tls"
    for key, value in read:
        if value in taken:
            document.fail(key, value, f"already taken by {taken[value]}", "give each its own")
        if value == made or made in _parents(value):
            document.fail(key, value, f"lies in {made}, where lbha writes", "keep it in another directory")


def _read(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Key and path of all that is only read."""
    for field in ("ca", "cert", "key"):
        yield f"peers.{field}", getattr(cluster.peers, field)
    if cluster.templates:
        yield "templates.directory", cluster.templates
    for service in cluster.services:
        key = f"services.{service.name}"
        if service.tls:
            for field in ("ca", "cert", "key"):
                if value := getattr(service.tls, field):
                    yield f"{key}.tls.{field}", value
        if service.token_file:
            yield f"{key}.token_file", service.token_file
        if isinstance(service.backends, str) and service.backends.startswith("etcd-env:"):
            yield f"{key}.backends", service.backends.partition(":")[2]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]
