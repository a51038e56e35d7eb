"""nftables' driver, of the shape of haproxy's and keepalived's: version, validate, what is loaded, load.

One table, `inet lbha`, and nothing else of the kernel's rules. Its rules carry the file's digest as their
comment, so that a table that was emptied or removed (a reboot, `nft flush ruleset`) is seen and loaded again.
Measured on nft 1.0.6, which leaves the comments of tables and chains out of its JSON.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lbha import engine, files
from lbha.engine import Running
from lbha.errors import EngineError
from lbha.model import Paths, Rendered

FILE = "lbha.nft"
TABLE = "inet lbha"

NOTHING = f"# Written by lbha. This node needs no rule.\ntable {TABLE}\ndelete table {TABLE}\n"
"""What lies in the place of lbha.nft when no rule is needed any more: loaded, it takes the table away."""

_PROGRAM, _PACKAGE = "nft", "nftables"
_TIMEOUT = 10.0
_VERSION = re.compile(r"nftables v(\S+)")
_DIGEST = re.compile(r"lbha-([0-9a-f]{12})")
_POSITION = re.compile(r"^(\S+?):(\d+):\d+-\d+: (.*)")


class Nftables:
    """The kernel's rules of a node (of this network namespace), as far as they are lbha's."""

    name = "nftables"
    file = FILE
    absent: str | None = NOTHING

    def __init__(self, paths: Paths) -> None:
        self._path = Rendered.targets(paths)[self.file]

    def version(self) -> str:
        """The installed version. EngineError when nft is not installed."""
        _, output = engine.run(_PROGRAM, ["--version"], 5.0, package=_PACKAGE)
        found = _VERSION.search(output)
        if found is None:
            raise EngineError(f"nft --version says {engine.first_problem(output.splitlines())}")
        return found.group(1)

    def validate(self, path: Path) -> None:
        """`nft -c`: the kernel itself looks at it. EngineError with its words and the line."""
        if _needless(path.read_text(encoding="utf-8")):
            return
        code, output = self._nft("-c", "-f", str(path))
        if code != 0:
            raise EngineError(f"nft refuses {path}: {_reason(output)}")

    def preflight(self, text: str, running: Running | None) -> None:
        """nft must be there, unless it has nothing to do."""
        if not _needless(text):
            self.version()

    def running(self) -> Running:
        """What is loaded. Where lbha has laid no rules, nobody is asked."""
        laid = files.read(self._path)
        if laid is None or laid == NOTHING.encode() or not engine.installed(_PROGRAM):
            return Running(0, None)
        return Running(0, self._digest())

    def runs(self, running: Running, text: str) -> bool:
        """By its digest."""
        return running.digest == engine.digest_in(text)

    def adjustable(self, running: Running, text: str) -> bool:
        """Never: it is always loaded whole."""
        return False

    def adjust(self, text: str) -> bool:
        """Never."""
        return False

    def reload(self, text: str) -> None:
        """Load `text` as one transaction, and see that it is loaded. EngineError.

        Connections that are open stay as they are: the kernel remembers where each one goes.
        """
        if _needless(text) and not engine.installed(_PROGRAM):
            return
        code, output = self._nft("-f", "-", stdin=text)
        if code != 0:
            raise EngineError(f"nft does not load {self._path}: {_reason(output)}")
        loaded = self._digest()
        if loaded != engine.digest_in(text):
            raise EngineError(f"nft has loaded {self._path}, but the kernel shows {loaded or 'no digest'}")

    def _digest(self) -> str | None:
        """The one digest that rules of the table carry; None without a table, or with rules of several."""
        code, output = self._nft("-j", "list", "table", *TABLE.split())
        if code != 0:
            if "No such file or directory" in output:
                return None
            raise EngineError(f"nft does not list the table {TABLE}: {_reason(output)}")
        digests = {found.group(1) for comment in _comments(output) if (found := _DIGEST.fullmatch(comment))}
        return digests.pop() if len(digests) == 1 else None

    def _nft(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        return engine.run(_PROGRAM, arguments, _TIMEOUT, package=_PACKAGE, stdin=stdin)


def with_absent(paths: Paths, contents: dict[str, bytes]) -> dict[str, bytes]:
    """`contents` with NOTHING for rules that are not wanted any more: left alone they would stay in force."""
    if FILE not in contents and files.read(Rendered.targets(paths)[FILE]) is not None:
        return {**contents, FILE: NOTHING.encode()}
    return contents


def _needless(text: str) -> bool:
    return text == NOTHING


def _comments(output: str) -> list[str]:
    try:
        entries: list[dict[str, dict[str, Any]]] = json.loads(output)["nftables"]
    except (ValueError, KeyError):
        raise EngineError(f"nft -j says {engine.first_problem(output.splitlines())}") from None
    return [str(entry["rule"].get("comment", "")) for entry in entries if "rule" in entry]


def _reason(output: str) -> str:
    """nft's first complaint, with the line; below it stands a picture of where."""
    lines = [line for line in output.splitlines() if line.strip()]
    for line in lines:
        if found := _POSITION.match(line):
            return f"line {found.group(2)}: {found.group(3).removeprefix('Error: ')}"
    return engine.first_problem(lines[:1])
