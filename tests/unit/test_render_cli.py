"""`lbha render` needs no root, and `--diff` shows what `lbha apply` would lay."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from lbha import host
from lbha.cli.render import command


@pytest.fixture
def file(tmp_path: Path, smallest: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster file on the node cp1."""
    monkeypatch.setattr(host, "own_addresses", lambda: {"10.0.0.11": "eth0"})
    path = tmp_path / "lbha.toml"
    path.write_text(
        f'{smallest}[paths]\nstate_dir = "{tmp_path}/state"\n'
        f'haproxy_cfg = "{tmp_path}/haproxy.cfg"\nkeepalived_conf = "{tmp_path}/keepalived.conf"\n'
    )
    return str(path)


def test_a_state_directory_of_root_is_no_hindrance(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(path: Path) -> bool:  # as Python 3.11 does below a directory that may not be entered
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    done = CliRunner().invoke(command, ["-c", file])
    assert done.exit_code == 0, done.output
    assert "server-state-file" in done.output


def test_the_diff_is_of_what_apply_would_lay(file: str) -> None:
    """apply makes the state file itself, also for the first time."""
    assert "server-state-file" in CliRunner().invoke(command, ["-c", file, "--diff"]).output
    assert "server-state-file" not in CliRunner().invoke(command, ["-c", file]).output


def test_what_only_the_node_itself_can_see_is_said(file: str) -> None:
    done = CliRunner().invoke(command, ["-c", file, "--node", "cp2"])
    assert 'cp2 is another host: rendered as listen = "vip"' in done.output and "apiserver, etcd" in done.output
    assert "is another host" not in CliRunner().invoke(command, ["-c", file, "--node", "cp1"]).output
    text = Path(file).read_text().replace('kind = "etcd"', 'kind = "etcd"\nlisten = "redirect"')
    Path(file).write_text(text)
    done = CliRunner().invoke(command, ["-c", file, "--node", "cp2"])
    assert "# ---- lbha.nft ----" in done.output and "dnat ip to 10.0.0.100:12379" in done.output
    assert (
        "+    ip daddr 10.0.0.100 tcp dport 2379" in CliRunner().invoke(command, ["-c", file, "--diff"]).output
    )
