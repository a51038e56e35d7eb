"""The reference names every key that there is."""

from __future__ import annotations

from pathlib import Path

from lbha.config import effective, parse
from lbha.model import CheckTimes, Paths

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "configuration.md"


def test_every_key_stands_in_the_reference(smallest: str) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    document = effective(parse(smallest))
    keys = {key for name, section in document.items() if name not in ("nodes", "services") for key in section}
    keys |= set(document["services"]["etcd"]) - {"check"} | set(Paths.__dataclass_fields__)
    keys |= {f"check.{field}" for field in CheckTimes.__dataclass_fields__}
    missing = sorted(key for key in keys if f"`{key}`" not in text and f"`{key} " not in text)
    assert missing == []
    assert all(f"## [{section}" in text for section in document)


def test_the_smallest_file_of_the_readme_is_the_tested_one(smallest: str) -> None:
    readme = REFERENCE.parent.parent / "README.md"
    assert smallest in readme.read_text(encoding="utf-8")
