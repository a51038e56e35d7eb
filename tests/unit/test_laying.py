"""What install lays it can take away, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha import files
from lbha.errors import LbhaError
from lbha.laying import Laying
from lbha.model import Mode

STATE = "/var/lib/lbha"
UNIT = "/etc/systemd/system/lbha-agent.service"
DROP_IN = "/etc/systemd/system/haproxy.service.d/lbha.conf"
WANTED = {UNIT: "agent\n", DROP_IN: "drop-in\n"}


@pytest.fixture
def laying(tmp_path: Path) -> Laying:
    return Laying(tmp_path, STATE)


def lay(laying: Laying, wanted: dict[str, str], *, force: bool = False) -> None:
    laying.lay(wanted, laying.plan(wanted, force=force), Mode.AGENT)


def everything(root: Path) -> dict[str, str]:
    return {f"/{path.relative_to(root)}": path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_second_time_there_is_nothing_to_do(laying: Laying, tmp_path: Path) -> None:
    assert laying.plan(WANTED).new == (UNIT, DROP_IN)
    lay(laying, WANTED)
    assert laying.plan(WANTED).idle
    before = everything(tmp_path)
    lay(laying, WANTED)
    assert everything(tmp_path) == before
    assert (tmp_path / UNIT[1:]).stat().st_mode & 0o777 == 0o644


def test_it_is_all_taken_away_with_its_directories(laying: Laying, tmp_path: Path) -> None:
    lay(laying, WANTED)
    assert laying.take_away() == (sorted(WANTED), [])
    assert everything(tmp_path) == {}
    assert not (tmp_path / DROP_IN[1:]).parent.exists()
    assert laying.take_away() == ([], [])


def test_a_neighbour_in_a_directory_stays(laying: Laying, tmp_path: Path) -> None:
    lay(laying, WANTED)
    neighbour = (tmp_path / DROP_IN[1:]).with_name("own.conf")
    neighbour.write_text("theirs")
    laying.take_away()
    assert everything(tmp_path) == {f"/{neighbour.relative_to(tmp_path)}": "theirs"}


def test_what_somebody_changed_is_kept(laying: Laying, tmp_path: Path) -> None:
    lay(laying, WANTED)
    (tmp_path / UNIT[1:]).write_text("edited")
    newer = WANTED | {UNIT: "agent 2\n"}
    assert laying.plan(newer).kept == (UNIT,)
    lay(laying, newer)
    assert (tmp_path / UNIT[1:]).read_text() == "edited"
    assert laying.plan(newer, force=True).changed == (UNIT,)
    assert laying.take_away() == ([DROP_IN], [UNIT])
    assert (tmp_path / UNIT[1:]).read_text() == "edited"


def test_an_upgrade_replaces_and_removes(laying: Laying, tmp_path: Path) -> None:
    lay(laying, WANTED)
    lay(laying, {UNIT: "agent 2\n"})
    assert everything(tmp_path).keys() == {UNIT, f"{STATE}/install.json"}
    assert (tmp_path / UNIT[1:]).read_text() == "agent 2\n"


def test_a_damaged_manifest_is_told(laying: Laying, tmp_path: Path) -> None:
    lay(laying, WANTED)
    (tmp_path / STATE[1:] / "install.json").write_text("{")
    with pytest.raises(LbhaError, match=r"install\.json: .*; remove it"):
        laying.plan(WANTED)


@given(st.integers(0, 7))
def test_killed_at_any_write_the_next_run_completes_it(survived: int) -> None:
    """An upgrade that dies at one of its writes: a second run lays it, and uninstall takes it all away."""
    import tempfile

    class Killed(BaseException):
        pass

    newer = {UNIT: "agent 2\n", "/etc/tmpfiles.d/lbha.conf": "d\n"}
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        root = Path(directory)
        laying = Laying(root, STATE)
        lay(laying, WANTED)
        real, left = files.write, [survived]

        def write(path: Path, data: bytes, access: files.Access) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            real(path, data, access)

        patch.setattr(files, "write", write)
        try:
            lay(laying, newer)
        except Killed:
            pass
        patch.setattr(files, "write", real)
        lay(laying, newer)
        assert everything(root).keys() == {*newer, f"{STATE}/install.json"}
        assert laying.plan(newer).idle
        laying.take_away()
        assert everything(root) == {}


def lbha(*words: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lbha"
    return subprocess.run(
        [program, "install", *map(str, words)], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_command_lays_below_a_root(tmp_path: Path) -> None:
    root = tmp_path / "image"
    nowhere = ("-c", "/nowhere/lbha.toml", "--root", root)
    planned = lbha(*nowhere, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert not root.exists()
    done = lbha(*nowhere)
    assert done.stdout.replace("laid", "would lay") == planned.stdout
    assert f"{UNIT}" in done.stdout
    assert lbha(*nowhere).stdout == "nothing to do: every file is in its place\n"
    switched = lbha(*nowhere, "--mode", "script")
    assert "removed /etc/systemd/system/lbha-drain.service\n" in switched.stdout
    assert "laid /etc/systemd/system/lbha-reload.timer\n" in switched.stdout
