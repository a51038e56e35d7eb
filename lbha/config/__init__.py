"""lbha.toml -> Cluster. Every mistake is one ConfigError, one line: file, key, value and what would do.

`parse` is pure; `load` reads the file. `effective` turns a Cluster back into a document with every default
visible: parsing that document gives the same Cluster.

    reading     file -> text -> tables
    document    the tables, and how a mistake in them is told
    schema      types and keys of each table
    values      a single word, path or number
    addresses   VIPs, nodes, endpoints
    services    [services.NAME]
    build       the whole -> Cluster
    collisions  one file, one purpose
    show        Cluster -> tables
    keys        what each key is and may be, in words; reference makes docs/reference.md of it

On the path of `lbha check SERVICE`, so it imports tomllib, msgspec and the standard library, and of that no
more than a good file needs.
"""

from __future__ import annotations

from pathlib import Path

from lbha.config.addresses import MAX_NODES
from lbha.config.build import PROFILES, build, default_virtual_router_id
from lbha.config.document import Document
from lbha.config.reading import MAX_BYTES, read, tables
from lbha.config.services import BALANCES, MAX_BACKENDS, RESERVED_SERVICES
from lbha.config.show import effective, fingerprint
from lbha.model import Cluster

__all__ = [
    "BALANCES",
    "MAX_BACKENDS",
    "MAX_BYTES",
    "MAX_NODES",
    "PROFILES",
    "RESERVED_SERVICES",
    "default_virtual_router_id",
    "effective",
    "fingerprint",
    "load",
    "parse",
]


def load(path: Path, *, program: str | None = None) -> Cluster:
    """Read and check a cluster file.

    `program` is the path of lbha itself, for the track scripts, where the file does not name one.
    Raises ConfigError for anything wrong with the file or in it.
    """
    return parse(read(path), str(path), program=program)


def parse(text: str, source: str = "lbha.toml", *, program: str | None = None) -> Cluster:
    """Check the text of a cluster file; `source` names it in errors. Raises ConfigError."""
    return build(Document(source, tables(text, source)), program)
