"""`lbha check`: keepalived's track script. Is haproxy, the VIP, or a service's backend on this node good?

keepalived 2.2.7 gives a script whole seconds and starts it every second on every node, so whatever hangs,
this ends within 0.9 s of the process's start, and the way to `check haproxy` and `check holder` imports only
what the interpreter has at hand. Hence `_socket`: `socket` takes as long to import as Python to start, for
the sake of enums and selectors. Hence also no dataclasses, argparse, re, enum or json here.
"""

from __future__ import annotations

import _thread
import os
import sys
import time

from lbha.check.watch import BACKSTOP, Bad, Misuse, Watch, line, told

TYPE_CHECKING = False
if TYPE_CHECKING:  # as `typing` has it, without importing it
    from lbha.model import Cluster

USAGE = """\
usage: lbha check haproxy [--socket PATH]
       lbha check holder [--vip ADDRESS]
       lbha check SERVICE [--kind KIND --address IP:PORT [--ca FILE] [--cert FILE --key FILE]] [--node NAME]
"""

HELP = """
keepalived's track script. One line says why; exit code 0 good, 1 bad, 2 misuse; at most 0.9 s.

  haproxy   this node's haproxy answers on its admin socket, is not stopping, and its frontends are open
  holder    ADDRESS (the VIP) is on this host
  SERVICE   the service's backend on this node is healthy

  --socket PATH         haproxy's admin socket
  --vip ADDRESS         IPv4 or IPv6
  --kind KIND           etcd, kube-apiserver or tcp; with --address and without lbha.toml
  --address IP:PORT     the backend; IPv6 as [IP]:PORT
  --ca, --cert, --key   PEM files: the authority to verify with, a client certificate and its key
  -c, --config FILE     where to look up what is not given (or LBHA_CONFIG; else /etc/lbha/lbha.toml)
  --node NAME           which node this is (or LBHA_NODE; else by its addresses)
  --explain             also what was asked, each fact, and how long it took
  -h, --help            this
"""

_OPTIONS = {
    "haproxy": ("--socket", "--config"),
    "holder": ("--vip", "--config"),
}
_SERVICE_OPTIONS = ("--kind", "--address", "--ca", "--cert", "--key", "--config", "--node")


def main(argv: list[str]) -> int:
    """Check what `argv` (without `lbha check`) names, print the reason, return the exit code. Never raises."""
    watch = Watch()
    over = _thread.allocate_lock()
    with over:
        try:
            _thread.start_new_thread(_backstop, (watch, over))
        except RuntimeError:
            pass  # no thread to be had: every step that asks someone has its own deadline
        try:
            if "-h" in argv or "--help" in argv:
                return _say(watch, 0, USAGE + HELP)
            watch.target, options, explain = parse(argv)
            code, verdict = _verdict(options, watch)
        except Misuse as error:
            return _say(watch, 2, f"lbha check: {line(str(error))}\n{USAGE}", to=2)
        text = line(verdict) + "\n"
        if explain:
            watch.note("end")
            text += "".join(line(each) + "\n" for each in watch.story)
        return _say(watch, code, text)


def _verdict(options: dict[str, str], watch: Watch) -> tuple[int, str]:
    """The exit code and the reason. Raises Misuse and nothing else."""
    try:
        return 0, f"ok: {_check(options, watch)}"
    except Misuse:
        raise
    except Bad as error:
        return 1, f"bad: {watch.target}: {error}"
    except TimeoutError:
        return 1, watch.late()
    except (Exception, KeyboardInterrupt) as error:
        return 1, f"bad: {watch.target}: {watch.doing}: {told(error)}"


def parse(argv: list[str]) -> tuple[str, dict[str, str], bool]:
    """What to check, the options by their long names, and whether to explain. Raises Misuse."""
    target, options, explain = None, {}, False
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name == "-c" and not equals:
            name = "--config"
        if word == "--explain":
            explain = True
        elif name in ("--socket", "--vip", *_SERVICE_OPTIONS):
            if not equals:
                value = next(rest, "")
            if not value or (not equals and value.startswith("-")):
                raise Misuse(f"{name} needs a value")
            options[name] = value
        elif word.startswith("-"):
            raise Misuse(f"unknown option {word}")
        elif target is not None:
            raise Misuse(f"unexpected argument {word}")
        else:
            target = word
    if not target:
        raise Misuse("say what to check: haproxy, holder, or a service")
    for name in options:
        if name not in _OPTIONS.get(target, _SERVICE_OPTIONS):
            raise Misuse(f"{name} does not go with {target}")
    return target, options, explain


def _check(options: dict[str, str], watch: Watch) -> str:
    """The reason why all is good. Raises Bad, Misuse, TimeoutError, OSError."""
    # Each check is imported by itself: the short way stays short.
    if watch.target == "haproxy":
        from lbha.check.haproxy import haproxy

        return haproxy(options.get("--socket") or _cluster(options, watch).paths.haproxy_socket, watch)
    if watch.target == "holder":
        from lbha.check.holder import holder

        return holder(options.get("--vip") or _cluster(options, watch).vips[0], watch)
    from lbha.check.service import service

    return service(watch.target, options, watch)


def _cluster(options: dict[str, str], watch: Watch) -> Cluster:
    from lbha.check.service import cluster

    return cluster(options, watch)


def _backstop(watch: Watch, over: _thread.LockType) -> None:
    """End the process when a step without a deadline hangs, such as a file on a dead filesystem.

    A thread and not an alarm: the main thread may be in a system call that no handled signal interrupts.
    """
    if over.acquire(True, max(0.0, watch.began + BACKSTOP - time.monotonic())):
        over.release()
        return
    if watch.code is None:
        if sys.stdout is not None:
            os.set_blocking(1, False)  # the last one that could wait: a full pipe
        _say(watch, 1, line(watch.late()) + "\n")
    os._exit(watch.code or 0)


def _say(watch: Watch, code: int, text: str, to: int = 1) -> int:
    """Write the last words, as far as anyone listens, and return the code: a broken pipe changes no verdict."""
    watch.code = code
    if (sys.stdout, sys.stderr)[to - 1] is None:  # closed: the number may be another file's by now
        return code
    try:
        os.write(to, text.encode("utf-8", "replace"))
    except OSError:
        pass
    return code
