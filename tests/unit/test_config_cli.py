"""Bad input through the installed command: one line on stderr, exit code 2, bounded time and memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_config_mistakes import MISTAKES, one_line

from lbha.config import load
from lbha.discovery import discover

EACH_KIND = (
    "unknown-section", "unknown-check", "port-text", "section-list", "vip-name", "node-twice",
    "node-name-twice", "service-twice", "node-is-vip", "node-family", "port-high", "port-taken",
    "no-nodes", "newline", "bidi-key", "node-quote", "path-comma", "open-text", "nested", "digits",
    "dotted", "check-nan", "port-huge",
)  # fmt: skip


def lbha(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command, in 512 MiB of memory."""
    program = Path(sys.executable).parent / "lbha"
    return subprocess.run(
        ["prlimit", "--as=536870912", str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | environment,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("lbha: ")
    return done.stderr.removeprefix("lbha: ").rstrip("\n")


@pytest.mark.parametrize("kind", EACH_KIND)
def test_the_command_line_says_it_and_exits_2(smallest: str, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "lbha.toml"
    file.write_text(MISTAKES[kind].text(smallest), encoding="utf-8")
    commands = (["config", "show", "-c", str(file)], ["render", "-c", str(file), "--node", "cp1"])
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda command: lbha(*command), commands):
            one_line(refused(done), MISTAKES[kind], str(file))


def test_a_node_that_is_not_in_the_file(smallest: str, tmp_path: Path) -> None:
    file = tmp_path / "lbha.toml"
    file.write_text(smallest, encoding="utf-8")
    told = refused(lbha("render", "-c", str(file), "--node", "cp4"))
    assert told == '--node "cp4" is not in [nodes]; use one of: cp1, cp2, cp3'
    told = refused(lbha("render", "-c", str(file), LBHA_NODE="x\x1b\ny"))
    assert told == r'LBHA_NODE "x\x1b\ny" is not in [nodes]; use one of: cp1, cp2, cp3'


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"# " + b"x" * (1 << 20))
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    (tmp_path / "latin").write_bytes(b'[cluster]\nname = "z\xfcrich"\n')
    (tmp_path / "utf16").write_text("[cluster]", encoding="utf-16")
    (tmp_path / "null").write_bytes(bytes(4096))
    expected = {
        "absent": "cannot be read: No such file or directory; name another file with -c FILE",
        "loop": "cannot be read: Too many levels of symbolic links; name another",
        "file/below": "cannot be read: Not a directory; name another",
        "x" * 300: "cannot be read: File name too long; name another",
        ".": "cannot be read: it is a directory; name another",
        "pipe": "cannot be read: it is not a regular file; name another",
        "/dev/zero": "cannot be read: it is not a regular file; name another",
        "/proc/self/mem": "cannot be read: Input/output error; name another",
        "big": "larger than 1 MiB; name a cluster file",
        "huge": "larger than 1 MiB; name a cluster file",
        "latin": "line 2: byte 0xfc is not UTF-8; save the file as UTF-8",
        "utf16": "line 1: byte 0xff is not UTF-8; save the file as UTF-8",
        "null": "not valid TOML: Invalid statement (at line 1, column 1)",
        "new\nline": "cannot be read: No such file",
        "\udcff": "cannot be read: No such file",
    }
    commands = [["config", "show", "-c", str(tmp_path / name)] for name in expected]
    with ThreadPoolExecutor(2) as pool:
        for done, (name, problem) in zip(
            pool.map(lambda command: lbha(*command), commands), expected.items(), strict=True
        ):
            told = refused(done)
            assert told.isprintable()
            assert problem in told, name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops capabilities")
def test_a_file_of_another_user(smallest: str, tmp_path: Path) -> None:
    """setpriv drops CAP_DAC_OVERRIDE: root without it is bound by permissions as everyone is."""
    file = tmp_path / "lbha.toml"
    file.write_text(smallest)
    file.chmod(0)
    program = str(Path(sys.executable).parent / "lbha")
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run(
        [*drop, program, "config", "show", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert refused(done).endswith("cannot be read: Permission denied; name another file with -c FILE")


def test_show_prints_a_complete_file_that_means_the_same(smallest: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(smallest)
    shown = lbha("config", "show", "-c", str(first))
    assert shown.returncode == 0, shown.stderr
    second.write_text(shown.stdout)
    assert lbha("config", "show", LBHA_CONFIG=str(second)).stdout == shown.stdout
    assert f'lbha = "{Path(sys.executable).parent.resolve() / "lbha"}"' in shown.stdout


def test_a_full_disk_below_the_output_is_one_line(smallest: str, tmp_path: Path) -> None:
    file = tmp_path / "lbha.toml"
    file.write_text(smallest)
    program = str(Path(sys.executable).parent / "lbha")
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    for words in (["config", "show"], ["render", "--node", "cp1"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [program, *words, "-c", str(file)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env=buffered,
            )
        assert done.returncode == 1
        assert done.stderr.endswith("lbha: cannot write the output: No space left on device\n")
        assert "Traceback" not in done.stderr


def test_render_says_how_old_an_answer_is_and_leaves_it_as_it_is(smallest: str, tmp_path: Path) -> None:
    file, env, memory = tmp_path / "lbha.toml", tmp_path / "etcd.env", tmp_path / "state" / "discovery"
    file.write_text(
        f'{smallest}backends = "etcd-env:{env}"\n[paths]\nstate_dir = "{tmp_path}/state"\nlbha = "/bin/true"\n'
    )
    env.write_text("ETCD_INITIAL_CLUSTER=a=http://10.0.0.11:2380\n")
    command = ["render", "-c", str(file), "--node", "cp1"]
    assert lbha(*command).returncode == 0
    assert not memory.exists()
    discover(load(file), memory)
    env.unlink()
    os.utime(memory / "etcd.json", (time.time() - 3600,) * 2)
    assert re.search(r"No such file or directory; kept from 36\d\d s ago\n", lbha(*command).stderr)
