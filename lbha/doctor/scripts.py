"""keepalived's track scripts. It fails open: one that it does not run leaves the node healthy for ever."""

from __future__ import annotations

import pwd
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbha import track_script
from lbha.doctor.context import Context
from lbha.doctor.model import Finding, NotChecked, Severity
from lbha.errors import EngineError
from lbha.keepalived_conf import parse

_USER = re.compile(r"^\s*(?:script_user|user)\s+(\S+)", re.MULTILINE)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What systemd gives a service (systemd.exec(5)), and a container mostly has."""

_FAILS_OPEN = "keepalived does not run it, and takes this node for healthy whatever happens"


def track_scripts(context: Context) -> Iterator[Finding]:
    """Those of the keepalived.conf that lies here; lbha's own are run as well."""
    conf, lbha = context.keepalived_conf, context.cluster.paths.lbha
    try:
        track_script.prove(conf, lbha)
    except EngineError as error:
        problem, _, cure = str(error).partition("; ")
        yield Finding("track-script", Severity.FATAL, f"{problem}: {_FAILS_OPEN}", cure)
    yield from judge_users(conf, _user_exists)
    own = {lbha, str(Path(lbha).resolve().parent / "lbha-track")}
    for program in programs(conf):
        if program not in own:
            yield from judge_path("track-script", program, path_facts(program))


def programs(conf: str) -> list[str]:
    """The program of each vrrp_script, each once. NotChecked when the file makes no sense."""
    try:
        commands = [script.command for script in parse("keepalived.conf", conf).scripts]
    except ValueError as error:
        raise NotChecked(f"keepalived.conf: {error}") from None
    return list(dict.fromkeys(words[0] for command in commands if (words := _words(command))))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def judge_users(conf: str, exists: Callable[[str], bool]) -> Iterator[Finding]:
    """`exists(name)`: whether that user is known here."""
    for name in sorted(set(_USER.findall(conf))):
        if not exists(name):
            yield Finding(
                "track-script",
                Severity.FATAL,
                f"script_user {name} does not exist here: {_FAILS_OPEN}",
                f"useradd --system {name}, or script_user root",
            )


@dataclass(frozen=True, slots=True)
class PathFacts:
    """One file or directory on the way to a program, by lstat."""

    path: str
    mode: int
    uid: int
    gid: int


def path_facts(program: str) -> tuple[PathFacts, ...]:
    """The program, its resolved self and every directory above both; empty when it does not exist. A bare name
    is looked for in PATH, as keepalived does."""
    path = Path(program if "/" in program else shutil.which(program, path=_PATH) or "")
    if not path.is_absolute() or not path.exists():
        return ()
    resolved = path.resolve()
    found = []
    for each in sorted({path, resolved, *path.parents, *resolved.parents}):
        status = each.lstat()
        found.append(PathFacts(str(each), status.st_mode, status.st_uid, status.st_gid))
    return tuple(found)


def judge_path(name: str, program: str, facts: Sequence[PathFacts]) -> Iterator[Finding]:
    """keepalived's rules (enable_script_security): it exists, it can be executed, and nobody but root may
    change it or a directory above it."""
    cure = "install it where only root may write, with mode 0755"
    if not program.startswith("/") and "/" in program:
        yield Finding(
            name, Severity.ERROR, f"{program} is no absolute path: {_FAILS_OPEN}", "write its whole path"
        )
        return
    if not facts:
        where = "does not exist" if "/" in program else f"is in no directory of {_PATH}"
        yield Finding(name, Severity.ERROR, f"{program} {where}: {_FAILS_OPEN}", cure)
        return
    own = [each for each in facts if stat.S_ISREG(each.mode)]
    if not any(each.mode & 0o111 for each in own):
        yield Finding(
            name, Severity.ERROR, f"{program} is not executable: {_FAILS_OPEN}", f"chmod 755 {program}"
        )
    for each in facts:
        if who := track_script.others_who_change(each.mode, each.uid, each.gid):
            yield Finding(name, Severity.ERROR, f"{program}: {each.path} {who}: {_FAILS_OPEN}", cure)


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
