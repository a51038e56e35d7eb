"""The history of applied configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbha.history import KEEP, History, Manifest


def _files(text: str) -> dict[str, bytes]:
    return {"haproxy.cfg": text.encode(), "keepalived.conf": b"k\n"}


def _applied(history: History, text: str) -> None:
    history.begin(_files(text), Manifest("apply", "2026-01-01T00:00:00+00:00", pools={"etcd": [text]}))
    history.commit()


def test_entries_come_back_as_they_were_oldest_first(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    assert history.entries() == []
    _applied(history, "one")
    _applied(history, "two")
    first, second = History(tmp_path / "history").entries()
    assert (first.number, first.name, first.files) == (1, "000001", _files("one"))
    assert (second.number, second.manifest.pools) == (2, {"etcd": ["two"]})
    assert (tmp_path / "history/000002/manifest.json").is_file()


def test_a_pending_entry_is_none_of_the_entries_until_committed(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.begin(_files("one"), Manifest("apply", "now"))
    assert history.entries() == []
    pending = history.pending()
    assert pending is not None and pending.files == _files("one")
    history.abort()
    assert history.pending() is None and history.entries() == []


def test_only_the_last_ten_are_kept_and_numbers_go_on(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in range(1, KEEP + 4):
        _applied(history, str(number))
    assert [entry.number for entry in history.entries()] == list(range(4, KEEP + 4))
    assert {path.name for path in tmp_path.iterdir()} == {f"{number:06d}" for number in range(4, KEEP + 4)}


def test_replace_puts_the_pending_entry_in_place_of_the_newest(tmp_path: Path) -> None:
    history = History(tmp_path)
    _applied(history, "one")
    _applied(history, "two")
    history.begin(_files("two"), Manifest("apply", "later", tls="new"))
    history.commit(replace=True)
    assert [(entry.number, entry.manifest.tls) for entry in history.entries()] == [(1, ""), (2, "new")]


@pytest.mark.parametrize("damage", ["", "{", "no manifest"])
def test_a_damaged_entry_is_left_out_and_its_number_not_used_again(tmp_path: Path, damage: str) -> None:
    history = History(tmp_path)
    _applied(history, "one")
    _applied(history, "two")
    manifest = tmp_path / "000002/manifest.json"
    if damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(damage)
    assert [entry.number for entry in history.entries()] == [1]
    _applied(history, "three")
    assert [entry.number for entry in history.entries()] == [1, 3]


def test_an_entry_that_was_half_written_is_swept_away(tmp_path: Path) -> None:
    history = History(tmp_path)
    (tmp_path / "building").mkdir()
    (tmp_path / "building/haproxy.cfg").write_text("half")
    _applied(history, "one")
    assert [entry.files for entry in history.entries()] == [_files("one")]
    assert not (tmp_path / "building").exists()
