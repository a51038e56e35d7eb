"""What is installed is what was tested: the wheel carries the templates and renders with them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_wheel_renders_on_its_own(tmp_path: Path, smallest: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    for template in (ROOT / "templates").rglob("*"):
        if template.is_file():
            assert (unpacked / "lbha" / "templates" / template.relative_to(ROOT / "templates")).is_file()
    (tmp_path / "lbha.toml").write_text(smallest)
    done = subprocess.run(
        [sys.executable, "-m", "lbha", "render", "-c", str(tmp_path / "lbha.toml"), "--node", "cp2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unicast_src_ip 10.0.0.12\n" in done.stdout
    assert str(ROOT / "lbha") not in done.stderr
