"""`lbha pki`: what it mints verifies with openssl, and nothing that is there is lost."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lbha import config, files, pki
from lbha.cli.pki import command
from lbha.errors import ConfigError, LbhaError
from lbha.model import Cluster


@pytest.fixture
def cluster(smallest: str) -> Cluster:
    return config.parse(smallest)


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout + done.stderr


def snapshot(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_each_chain_verifies_with_openssl(cluster: Cluster, tmp_path: Path, purpose: str) -> None:
    pki.init(cluster, tmp_path)
    for node in cluster.nodes:
        place = tmp_path / node.name
        told = openssl(
            "verify", "-x509_strict", "-purpose", purpose, "-verify_ip", node.address,
            "-CAfile", place / "ca.crt", place / "node.crt",
        )  # fmt: skip
        assert told == f"{place}/node.crt: OK\n"
        told = openssl("verify", "-verify_ip", "10.9.9.9", "-CAfile", place / "ca.crt", place / "node.crt")
        assert "IP address mismatch" in told


def test_names_of_both_families_and_the_lives(cluster: Cluster, tmp_path: Path) -> None:
    nodes = tuple(replace(node, addresses=(node.address, f"fd00::{node.name[-1]}")) for node in cluster.nodes)
    pki.init(replace(cluster, nodes=nodes), tmp_path, days=90)
    shown = openssl("x509", "-in", tmp_path / "cp2" / "node.crt", "-noout", "-ext", "subjectAltName")
    assert "IP Address:10.0.0.12, IP Address:FD00:0:0:0:0:0:0:2, DNS:cp2" in shown
    for file, days in (("cp2/node.crt", 90), ("ca.crt", 3650)):
        for left, code in ((days * 86400 - 600, 0), (days * 86400 + 600, 1)):
            end = ["openssl", "x509", "-noout", "-checkend", str(left), "-in", str(tmp_path / file)]
            assert subprocess.run(end, capture_output=True, check=False).returncode == code


def test_keys_are_for_root_alone(cluster: Cluster, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        pki.init(cluster, tmp_path / "pki")
    finally:
        os.umask(old)
    for path in (tmp_path / "pki").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600 if path.suffix == ".key" else 0o644), path


def test_again_keeps_everything_and_mints_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    fewer = replace(cluster, nodes=cluster.nodes[:2])
    assert all(made.new for made in pki.init(fewer, tmp_path))
    before = snapshot(tmp_path)
    made = pki.init(cluster, tmp_path)
    assert {str(each.path.relative_to(tmp_path)) for each in made if each.new} == {
        "cp3/ca.crt", "cp3/node.crt", "cp3/node.key",
    }  # fmt: skip
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before


def test_renew_makes_one_node_new(cluster: Cluster, tmp_path: Path) -> None:
    pki.init(cluster, tmp_path)
    before = snapshot(tmp_path)
    pki.init(cluster, tmp_path, renew=["cp2"])
    after = snapshot(tmp_path)
    assert {name for name in before if after[name] != before[name]} == {"cp2/node.crt", "cp2/node.key"}
    with pytest.raises(ConfigError, match='--renew "cp9" is not in'):
        pki.init(cluster, tmp_path, renew=["cp9"])


@pytest.mark.parametrize("survives", range(8))
def test_killed_after_any_write_the_next_run_completes_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    one = replace(cluster, nodes=cluster.nodes[:1])
    left = iter(range(survives))

    def killed(path: Path, *rest: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(path, *rest)  # type: ignore[arg-type]

    real = files.write
    monkeypatch.setattr(files, "write", killed)
    try:
        pki.init(one, tmp_path, renew=["cp1"])
    except KeyboardInterrupt:
        assert survives < 5
    monkeypatch.undo()
    keys = {name: data for name, data in snapshot(tmp_path).items() if name.endswith(".key")}
    pki.init(one, tmp_path)
    assert snapshot(tmp_path).items() >= keys.items()
    place = tmp_path / "cp1"
    assert openssl("verify", "-CAfile", place / "ca.crt", place / "node.crt").endswith(": OK\n")
    assert not any(made.new or made.note for made in pki.init(one, tmp_path))


def test_a_kept_certificate_that_no_longer_fits_is_told(cluster: Cluster, tmp_path: Path) -> None:
    pki.init(cluster, tmp_path, days=7)
    moved = replace(cluster.nodes[1], addresses=("10.0.0.99",))
    (tmp_path / "cp3" / "node.key").write_bytes((tmp_path / "cp1" / "node.key").read_bytes())
    made = pki.init(replace(cluster, nodes=(cluster.nodes[0], moved, cluster.nodes[2])), tmp_path)
    notes = {each.path.parent.name: each.note for each in made if each.note}
    assert notes["cp1"].startswith("expires on ") and notes["cp1"].endswith(": use --renew cp1")
    assert notes["cp2"] == "does not name 10.0.0.99: use --renew cp2"
    assert notes["cp3"] == "does not belong to its key: use --renew cp3"


def test_a_certificate_of_another_ca_is_told(cluster: Cluster, tmp_path: Path) -> None:
    pki.init(cluster, tmp_path / "a")
    pki.init(cluster, tmp_path / "b")
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    made = pki.init(cluster, tmp_path / "a")
    assert [each.note for each in made if each.note] == [
        f"is not from this CA: use --renew {node.name}" for node in cluster.nodes
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda out: (out / "ca.key").unlink(), "ca.key is missing beside ca.crt"),
        (lambda out: (out / "ca.key").write_text("x"), "ca.key is not a key in PEM"),
        (lambda out: (out / "ca.crt").write_text("x"), "ca.crt is not a certificate in PEM"),
        (
            lambda out: (out / "ca.key").write_bytes((out / "cp1/node.key").read_bytes()),
            "do not belong together",
        ),
        (lambda out: (out / "cp2/node.key").unlink(), "use --renew cp2"),
        (lambda out: (out / "cp2/node.key").write_text(""), "node.key is not a key in PEM"),
    ],
)
def test_what_does_not_fit_is_refused_and_left_alone(cluster: Cluster, tmp_path: Path, damage, said) -> None:
    pki.init(cluster, tmp_path)
    damage(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(LbhaError, match=said) as caught:
        pki.init(cluster, tmp_path)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert snapshot(tmp_path) == before


def test_the_command_says_each_file_and_what_to_copy(smallest: str, tmp_path: Path) -> None:
    file, out = tmp_path / "lbha.toml", tmp_path / "pki"
    file.write_text(smallest)
    run = CliRunner().invoke
    first = run(command, ["init", "-c", str(file), "--out", str(out)])
    assert first.exit_code == 0, first.output
    lines = first.output.splitlines()
    assert f"new   {out}/ca.key" in lines and f"new   {out}/cp3/node.crt" in lines
    assert "/etc/lbha/pki/node.key (mode 0600)" in first.output
    again = run(command, ["init", "-c", str(file), "--out", str(out)])
    assert f"kept  {out}/cp3/node.crt" in again.output.splitlines() and "new " not in again.output
    assert run(command, ["init", "-c", str(file), "--out", str(out), "--days", "0"]).exit_code == 2


def test_a_directory_that_cannot_be_written_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LbhaError, match="file"):
        pki.init(cluster, tmp_path / "file" / "pki")
