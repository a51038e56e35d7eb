"""Which keys a table may have and of what type; no meaning yet, and no defaults that depend on another key."""

from __future__ import annotations

from typing import NoReturn, TypeVar

import msgspec

from lbha.config.document import ABSENT, Document, suggest, under


class Table(msgspec.Struct, frozen=True):
    """A table of lbha.toml as written."""


class RawCluster(Table, frozen=True):
    """[cluster]"""

    name: str
    vip: str | None = None
    vips: list[str] | None = None
    interface: str | None = None
    virtual_router_id: int | None = None


class RawCheck(Table, frozen=True):
    """[services.NAME.check]"""

    interval: float | None = None
    fast_interval: float | None = None
    timeout: float | None = None
    rise: int | None = None
    fall: int | None = None


class RawTls(Table, frozen=True):
    """[services.NAME.tls]"""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class RawService(Table, frozen=True):
    """[services.NAME]"""

    kind: str
    port: int | None = None
    target_port: int | None = None
    backends: str | list[str] = "nodes"
    balance: str = "leastconn"
    check: RawCheck = RawCheck()
    tls: RawTls | None = None
    listen: str = "auto"
    redirect_port: int | None = None
    token_file: str | None = None


class RawFailover(Table, frozen=True):
    """[failover]"""

    profile: str = "balanced"
    advert_interval: float | None = None
    down_timer_adverts: int | None = None
    failback: bool = False
    vrrp_filter: bool = False
    handover_rate: int = 1000


class RawHealth(Table, frozen=True):
    """[health]"""

    mode: str = "agent"
    interval: int = 1
    rise: int = 2
    fall: int = 2
    quarantine: float = 30.0


class RawMetrics(Table, frozen=True):
    """[metrics]"""

    address: str = "127.0.0.1:8404"


class RawPeers(Table, frozen=True):
    """[peers]"""

    port: int = 8406
    ca: str = "/etc/lbha/pki/ca.crt"
    cert: str = "/etc/lbha/pki/node.crt"
    key: str = "/etc/lbha/pki/node.key"


class RawPaths(Table, frozen=True):
    """[paths]"""

    lbha: str | None = None
    state_dir: str | None = None
    run_dir: str | None = None
    haproxy_cfg: str | None = None
    haproxy_socket: str | None = None
    haproxy_master_socket: str | None = None
    keepalived_conf: str | None = None
    keepalived_pid: str | None = None


class RawTemplates(Table, frozen=True):
    """[templates]"""

    directory: str | None = None


SECTIONS = ("cluster", "nodes", "services", "failover", "health", "metrics", "peers", "paths", "templates")

_INNER: dict[str, type[Table]] = {"check": RawCheck, "tls": RawTls}
"""Keys that are tables themselves."""

_WORDS = {
    "str": 'text in quotes ("…")',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list [ … ]",
    "object": "a table",
}
"""msgspec's types in an operator's words."""

_T = TypeVar("_T", bound=Table)


def section(document: Document, key: str, kind: type[_T]) -> _T:
    """The top-level table `key`, empty when the file has none."""
    return convert(document, key, document.tables.get(key, {}), kind)


def convert(document: Document, key: str, value: object, kind: type[_T]) -> _T:
    """`value` as a table of that kind: known keys, right types, nothing missing. Raises ConfigError."""
    _refuse_unknown_keys(document, key, value, kind)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        _explain(document, key, value, str(error))


def _refuse_unknown_keys(document: Document, key: str, value: object, kind: type[Table]) -> None:
    """Not left to msgspec, whose message an unknown key, being any text, could make ambiguous."""
    if not isinstance(value, dict):
        return
    for name, item in value.items():
        if name not in kind.__struct_fields__:
            document.fail(under(key, name), ABSENT, "unknown key", suggest(name, kind.__struct_fields__))
        if name in _INNER:
            _refuse_unknown_keys(document, under(key, name), item, _INNER[name])


def _explain(document: Document, key: str, value: object, message: str) -> NoReturn:
    """msgspec's `$.path` becomes the key that the operator wrote."""
    import re

    problem, _, where = message.partition(" - at `$")
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", where):
        key = f"{key}.{name}" if name else f"{key}[{index}]"
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list):
            value = value[int(index)]
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
        document.fail(under(key, missing[1]), ABSENT, "missing", "write it")
    if expected := re.match(r"Expected `(.+?)`, got", problem):
        types = [_WORDS[part] for part in expected[1].split(" | ") if part in _WORDS]
        document.fail(key, value, "wrong type", f"write {' or '.join(types)}")
    document.fail(key, value, "out of range", "write a smaller number")
