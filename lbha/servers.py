"""One server of a service, as an operator wants it: `lbha backend SERVICE/SERVER drain|ready|maint`."""

from __future__ import annotations

import difflib
from pathlib import Path

from lbha import files, haproxy_text, live, overrides
from lbha.errors import EngineError, LbhaError
from lbha.haproxy import Haproxy
from lbha.live import Server
from lbha.model import Paths
from lbha.overrides import Override

STATES = ("drain", "maint", "ready")


def set_server_state(paths: Paths, service: str, server: str, state: str, *, force: bool = False) -> None:
    """Drain a server, put it in maintenance or take it back, in every pool of its service, and remember it.

    Returns when haproxy shows it. LbhaError when there is no such service, server or state, when haproxy does
    not run what lbha laid, and, without `force`, when it would leave a pool without a server that serves.
    """
    if state not in STATES:
        raise LbhaError(f"no such state: {state}; use {', '.join(STATES)}")
    state_dir = Path(paths.state_dir)
    try:
        with files.lock(files.private_directory(state_dir) / "lock"):
            _set(paths, service, server, state, force)
    except OSError as error:
        raise LbhaError(f"{error.filename}: {error.strerror}; run it as root") from None


def _set(paths: Paths, service: str, server: str, state: str, force: bool) -> None:
    text = (files.read(Path(paths.haproxy_cfg)) or b"").decode("utf-8", "replace")
    pools = haproxy_text.pools(text)
    backends = [each for each in (service, f"{service}.open") if each in pools]
    if not backends:
        names = [each for each in pools if not each.endswith(".open")]
        raise LbhaError(f"no service {service} in {paths.haproxy_cfg}; {_suggest(service, names)}")
    if server not in pools[service]:
        raise LbhaError(f"no server {server} in {service}; {_suggest(server, list(pools[service]))}")
    haproxy = Haproxy(paths)
    running = haproxy.running()
    if running is None:
        raise EngineError("haproxy does not run; start it first")
    if not haproxy.adjustable(running, text):
        raise EngineError(f"haproxy does not run what is in {paths.haproxy_cfg}; lbha apply first")
    before = overrides.read(paths.state_dir)
    if state != "ready" and not force:
        for backend in backends:
            _refuse_to_empty(text, running.servers, backend, server)
    key = f"{service}/{server}"
    after: dict[str, Override] = {name: kept for name, kept in before.items() if name != key}
    if state != "ready":
        after[key] = "drain" if state == "drain" else "maint"
    overrides.write(paths.state_dir, after)
    if not haproxy.adjust(text):
        overrides.write(paths.state_dir, before)
        raise EngineError(f"haproxy did not take {key} to {state}; lbha apply sets right what it left")


def _refuse_to_empty(text: str, actual: tuple[Server, ...], backend: str, server: str) -> None:
    carrier = live.running_name(text, actual, backend, server)
    serving = [each for each in actual if each.backend == backend and each.serves]
    if carrier in serving and len(serving) == 1:
        raise LbhaError(f"{server} is the last server that serves {backend}; --force does it all the same")


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"use one of: {', '.join(known) or 'none'}"
