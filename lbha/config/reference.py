"""docs/reference.md: every key of lbha.toml. Type and default come from the schema and the parser itself."""

from __future__ import annotations

from typing import Any

import msgspec

from lbha.config.addresses import MAX_NODES
from lbha.config.build import PROFILES, build
from lbha.config.document import Document
from lbha.config.keys import KEYS, Key
from lbha.config.schema import (
    RawCheck,
    RawCluster,
    RawFailover,
    RawHealth,
    RawMetrics,
    RawPaths,
    RawPeers,
    RawService,
    RawTemplates,
    RawTls,
    Table,
)
from lbha.config.services import RESERVED_SERVICES
from lbha.config.show import effective
from lbha.model import Kind

TABLES: dict[str, type[Table]] = {
    "cluster": RawCluster,
    "services.NAME": RawService,
    "services.NAME.check": RawCheck,
    "services.NAME.tls": RawTls,
    "failover": RawFailover,
    "health": RawHealth,
    "metrics": RawMetrics,
    "peers": RawPeers,
    "paths": RawPaths,
    "templates": RawTemplates,
}

_HEAD = """\
# Every key of lbha.toml

`lbha config reference` prints this page; it is made from the schema that lbha checks the file with. What the
keys mean for a cluster, and how they go together, is in [configuration.md](configuration.md).

A path is absolute, without `..` and `//`, of letters, digits, `.`, `_`, `-`, `+` and `/`.
"""

_REQUIRED = "required"

_NOTES = {
    "services.NAME": "NAME: lower-case letters, digits and, between them, `-`; at most 32 characters; neither"
    f" {' nor '.join(f'`{name}`' for name in RESERVED_SERVICES)}.",
    "services.NAME.tls": "Empty is refused, and so is the table where `kind` is `tcp`.",
}

_COLUMNS = "| key | type | default | allowed | unit | what it is |\n|---|---|---|---|---|---|\n"

_NODES = f"""
## [nodes]

A key for each node, the preferred one first; 1 to {MAX_NODES} of them. NAME: letters, digits and, between them,
`.`, `_`, `-`; at most 63 characters.

{_COLUMNS}\
| `NAME` | string, or array of strings | required | an IPv4 or IPv6 address; a list has one of each family | |\
 The node's own address, of every family that a VIP has. |
"""


def page() -> str:
    """The whole page as Markdown. Raises KeyError for a key of the schema that nobody described."""
    tables = [_table(name, table) for name, table in TABLES.items()]
    return "".join([_HEAD, tables[0], _NODES, *tables[1:]])


def rows(name: str, table: type[Table]) -> list[tuple[str, ...]]:
    """Key, type, default, allowed, unit and description of every key in a table that is not itself one."""
    return [
        (
            f"`{field.name}`",
            _type(msgspec.inspect.type_info(field.type)),
            key.default or _default(name, field),
            _allowed(key),
            key.unit,
            key.about,
        )
        for field in msgspec.structs.fields(table)
        if f"{name}.{field.name}" not in TABLES
        for key in (KEYS[name][field.name],)
    ]


def _table(name: str, table: type[Table]) -> str:
    lines = [f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in row)}|\n" for row in rows(name, table)]
    note = f"{_NOTES[name]}\n\n" if name in _NOTES else ""
    return f"\n## [{name}]\n\n{note}{_COLUMNS}{''.join(lines)}"


def _type(kind: msgspec.inspect.Type) -> str:
    """A type in TOML's words."""
    match kind:
        case msgspec.inspect.UnionType(types=types):
            return ", or ".join(_type(each) for each in types if not isinstance(each, msgspec.inspect.NoneType))
        case msgspec.inspect.ListType(item_type=item):
            return f"array of {_type(item)}s"
        case msgspec.inspect.BoolType():
            return "boolean"
        case msgspec.inspect.IntType():
            return "integer"
        case msgspec.inspect.FloatType():
            return "number"
        case msgspec.inspect.StrType():
            return "string"
    raise TypeError(f"no word for {kind}")


def _allowed(key: Key) -> str:
    if isinstance(key.allowed, tuple):
        return ", ".join(f"`{word}`" for word in key.allowed)
    return str(key.allowed)


def _default(name: str, field: msgspec.structs.FieldInfo) -> str:
    """The schema's own; where it has none, what the parser makes of a file without the key."""
    if field.required:
        return _REQUIRED
    if field.default is not None:
        return _value(field.default)
    section, *inner = name.split(".NAME")
    found: dict[str, dict[str, Any]] = {}
    if section == "services":
        for kind in Kind:
            service = _smallest(kind=kind)[section]["x"]
            if kind is Kind.TCP:
                service["port"] = _REQUIRED
            found[kind.value] = service[inner[0].strip(".")] if inner[0] else service
    elif section == "failover":
        found = {profile: _smallest(profile=profile)[section] for profile in PROFILES}
    else:
        found = {"": _smallest()[section]}
    by_value: dict[str, list[str]] = {}
    for choice, table in found.items():
        by_value.setdefault(_value(table[field.name]), []).append(f"`{choice}`")
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} ({', '.join(choices)})" for value, choices in by_value.items())


def _value(value: object) -> str:
    if value is _REQUIRED:
        return _REQUIRED
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"{value:g}" if isinstance(value, (int, float)) else f"`{value}`"


def _smallest(kind: Kind = Kind.ETCD, profile: str = "balanced") -> dict[str, Any]:
    """The effective configuration of a file with nothing optional in it."""
    port = {"port": 1} if kind is Kind.TCP else {}
    tables = {
        "cluster": {"name": "x", "vip": "10.0.0.100"},
        "nodes": {"x": "10.0.0.11"},
        "services": {"x": {"kind": kind.value} | port},
        "failover": {"profile": profile},
    }
    return effective(build(Document("reference", tables), None))
