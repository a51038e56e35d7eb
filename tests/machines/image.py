"""The tree that every machine boots from: Debian 12 with systemd, made once and kept in a cache.

The cache is /var/cache/lbha-machines, or LBHA_MACHINES_CACHE. haproxy and keepalived are not installed in the
tree but lie in apt's own cache there, so that `apt install ./lbha.deb` finds them without a network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
RELEASE = "bookworm"
INCLUDE = "systemd-sysv,dbus,iproute2,procps,python3,etcd-server,etcd-client,ca-certificates"
LATER = ("haproxy", "keepalived", "nftables")
"""With what they recommend, as apt installs them."""


def base() -> Path:
    """The tree; some 60 s and 400 MB where it is not there yet. Raises CalledProcessError."""
    recipe = hashlib.sha256(repr((MIRROR, RELEASE, INCLUDE, LATER)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("LBHA_MACHINES_CACHE", "/var/cache/lbha-machines"))
    tree = cache / f"{RELEASE}-{recipe}"
    if tree.is_dir():
        return tree
    draft = cache / f".{tree.name}.new"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _run("debootstrap", "--variant=minbase", f"--include={INCLUDE}", RELEASE, str(draft), MIRROR)
    (draft / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
    apt = ("chroot", str(draft), "apt-get", "-q", "-y")
    _run(*apt, "clean")
    _run(*apt, "update")
    _run(*apt, "--download-only", "install", *LATER)
    (draft / "etc/resolv.conf").unlink()
    draft.rename(tree)
    return tree


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
