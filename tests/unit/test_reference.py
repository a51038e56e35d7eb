"""docs/reference.md is what the generator makes: every key of the schema, with the bounds of the parser."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from lbha.config import parse
from lbha.config.keys import KEYS, Range
from lbha.config.reference import TABLES, page, rows
from lbha.config.schema import SECTIONS, Table
from lbha.errors import ConfigError

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference.md"
EVERY_KEY = [(table, name) for table, keys in KEYS.items() for name in keys]
WITH = {
    "tls.cert": {"key": "/k"},
    "tls.key": {"cert": "/c"},
    "NAME.token_file": {"kind": "kube-apiserver", "backends": "kubernetes"},
    "NAME.kind": {"port": 1},
}
"""What a key needs beside it."""


def test_the_page_is_what_the_schema_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "lbha config reference >docs/reference.md"


def test_every_table_and_key_of_the_schema_is_described_and_no_other() -> None:
    assert set(TABLES.values()) == set(Table.__subclasses__())
    assert {name.partition(".")[0] for name in TABLES} | {"nodes"} == set(SECTIONS)
    inner = {name.rpartition(".")[2] for name in TABLES if name.count(".") == 2}
    for name, table in TABLES.items():
        assert table.__doc__ == f"[{name}]"
        assert set(KEYS[name]) == set(table.__struct_fields__) - inner
    assert set(KEYS) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_every_key_has_a_row_with_type_default_and_description(name: str) -> None:
    section = page().partition(f"\n## [{name}]\n")[2].partition("\n## ")[0]
    for key, kind, default, allowed, _, about in rows(name, TABLES[name]):
        assert kind and default and about.endswith(".") and len(about) > len("Its key.")
        assert allowed or kind == "boolean"
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {key} |")]
        assert line.count("|") == 7 and line.endswith(f" {about} |")


def test_none_of_it_is_read_where_every_second_counts() -> None:
    """keepalived starts `lbha check SERVICE` each second, and that reads lbha.toml."""
    code = "import sys, lbha.config; print(*(name for name in sys.modules if name.startswith('lbha.config.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "lbha.config.schema" in done.stdout.split()
    assert not {"lbha.config.keys", "lbha.config.reference"} & set(done.stdout.split())


def test_a_key_without_a_description_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(KEYS["failover"], "failback")
    with pytest.raises(KeyError, match="failback"):
        page()


@pytest.mark.parametrize(
    ("table", "name"), [key for key in EVERY_KEY if isinstance(KEYS[key[0]][key[1]].allowed, Range)]
)
def test_numbers_are_taken_within_the_bounds_and_nowhere_else(table: str, name: str) -> None:
    bounds = KEYS[table][name].allowed
    assert isinstance(bounds, Range)
    whole = bounds.step == 1
    for good in (bounds.lowest, bounds.lowest + bounds.step, bounds.highest):
        parse(_with(table, name, int(good) if whole else good))
    wrong = [bounds.lowest - bounds.step, bounds.highest + bounds.step]
    for bad in wrong if whole else [*wrong, bounds.lowest + 1.5 * bounds.step]:
        with pytest.raises(ConfigError, match="out of range"):
            parse(_with(table, name, int(bad) if whole else bad))


@pytest.mark.parametrize(
    ("table", "name"), [key for key in EVERY_KEY if isinstance(KEYS[key[0]][key[1]].allowed, tuple)]
)
def test_the_listed_words_are_all_that_the_parser_knows(table: str, name: str) -> None:
    words = KEYS[table][name].allowed
    assert isinstance(words, tuple)
    for word in words:
        parse(_with(table, name, str(word)))
    with pytest.raises(ConfigError, match=f"; use one of: {', '.join(words)}$"):
        parse(_with(table, name, "zzzzzzzzzz"))


@pytest.mark.parametrize(
    ("table", "name"),
    [key for key in EVERY_KEY if str(KEYS[key[0]][key[1]].allowed).startswith("an absolute path")],
)
def test_paths_may_be_as_long_as_the_page_says(table: str, name: str) -> None:
    (longest,) = re.findall(r"at most (\d+) characters$", str(KEYS[table][name].allowed))
    parse(_with(table, name, "/" + "x" * (int(longest) - 1)))
    with pytest.raises(ConfigError, match="too long"):
        parse(_with(table, name, "/" + "x" * int(longest)))


def _with(table: str, name: str, value: object) -> str:
    """A small file with that key set."""
    document: dict[str, Any] = {
        "cluster": {"name": "x", "vip": "10.0.0.100"},
        "nodes": {"x": "10.0.0.11"},
        "services": {"NAME": {"kind": "etcd"}},
    }
    inner = document
    for part in table.split("."):
        inner = inner.setdefault(part, {})
    inner.update(WITH.get(f"{table.rpartition('.')[2]}.{name}", {}))
    inner[name] = value
    if "NAME" in document["services"]:
        document["services"]["x"] = document["services"].pop("NAME")
    return tomli_w.dumps(document)
