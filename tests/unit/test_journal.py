"""Messages in journald's native protocol, on a socket that stands in for its own."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha.agent.journal import Journal, datagram


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.settimeout(5)
        yield listener


def log(path: Path) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(Journal(str(path), {"LBHA_NODE": "cp1"}))
    return logger


def test_an_event_arrives_with_its_fields(journald: socket.socket, tmp_path: Path) -> None:
    logger = log(tmp_path / "socket")
    logger.info("%s: %s", "vip-lost", "gone", extra={"event": "vip-lost", "cause": "drain"})
    assert parse(journald.recv(4096)) == {
        "MESSAGE": "vip-lost: gone",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "lbha",
        "LBHA_NODE": "cp1",
        "LBHA_EVENT": "vip-lost",
        "LBHA_CAUSE": "drain",
    }
    logger.error("bad")
    found = parse(journald.recv(4096))
    assert found["PRIORITY"] == "3" and "LBHA_EVENT" not in found


def test_without_a_journal_the_message_is_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path / "nobody").warning("careful")
    assert capsys.readouterr().err == "careful\n"


def test_only_a_stderr_that_is_the_journals_is_replaced(tmp_path: Path) -> None:
    code = "import logging; from lbha.agent import journal; logging.basicConfig(); journal.set_up({}); "
    code += "print(type(logging.getLogger().handlers[0]).__name__)"
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        for value, handler in ((f"{found.st_dev}:{found.st_ino}", "Journal"), ("1:2", "StreamHandler")):
            done = subprocess.run(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                stderr=stream,
                env=os.environ | {"JOURNAL_STREAM": value},
                text=True,
                check=True,
            )
            assert done.stdout == f"{handler}\n"


@given(st.dictionaries(st.sampled_from(["MESSAGE", "LBHA_EVENT", "LBHA_NODE"]), st.text()))
def test_no_value_can_pose_as_another_field(fields: dict[str, str]) -> None:
    assert parse(datagram(fields)) == {
        name: value.encode("utf-8", "replace").decode() for name, value in fields.items()
    }


def parse(data: bytes) -> dict[str, str]:
    """As the protocol's description reads."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        found[name.decode()] = value.decode()
    return found
