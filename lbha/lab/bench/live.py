"""How soon a change is live: an edit of lbha.toml, and a member of etcd that comes or goes."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import tomli_w

from lbha.errors import EngineError, LabError
from lbha.facts import Server
from lbha.haproxy_socket import Socket
from lbha.haproxy_stat import servers
from lbha.lab import drill, lab
from lbha.lab.bench import extra
from lbha.lab.bench.figures import Figure
from lbha.lab.bench.options import Options, lab_with
from lbha.lab.load import Load
from lbha.lab.measure import figures
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG

CLIENTS = 4
WATCHES = 25
"""Of each client, so 200 new connections a second and 100 long streams."""

_TIMEOUT = 30.0
_LOOK = 0.005


def measure(options: Options) -> Iterator[Figure]:
    """All of it, as the holder's haproxy tells it. LabError."""
    options.tell("live: starting a lab")
    with lab_with("lbha-agent", 3, '[services.etcd]\nbackends = "etcd-members"\n') as spec:
        drill.rest(spec)
        yield from _edits(spec, options)
        drill.rest(spec)
        yield from _members(spec, options)


def _edits(spec: LabSpec, options: Options) -> list[Figure]:
    """The apiserver's pool from three servers to four and back, under load."""
    node = spec.node(lab.holders(spec)[0])
    file = node.directory / CONFIG
    before = file.read_text()
    own = sorted(_endpoints(node, "apiserver"))
    added, removed, failed, cut = [], [], [], []
    with extra.apiserver(spec, spec.nodes[0]) as fourth, ExitStack() as stack:
        replace(file, _pool(before, own))
        loads = [stack.enter_context(Load(spec, WATCHES)) for _ in range(CLIENTS)]
        time.sleep(3.0)
        for run in range(options.runs):
            options.tell(f"live: edit {run + 1} of {options.runs}")
            began = time.monotonic()
            replace(file, _pool(before, [*own, fourth]))
            added.append(_until(f"{fourth} is UP", lambda: fourth in _up(node, "apiserver"), began))
            time.sleep(1.0)
            edited = time.monotonic()
            replace(file, _pool(before, own))
            removed.append(_until(f"{fourth} is gone", lambda: fourth not in _up(node, "apiserver"), edited))
            time.sleep(2.0)
            seen = [figures(load.requests(), began, time.monotonic()) for load in loads]
            failed.append(float(sum(each.failed for each in seen)))
            cut.append(float(sum(_cut_since(load, began) for load in loads)))
        unaware = sum(load.probe().unaware for load in loads)
    replace(file, before)
    streams = CLIENTS * WATCHES
    return [
        Figure("live", "edit, 3 to 4 backends: until the server is UP", "ms", tuple(added)),
        Figure("live", "edit, 4 to 3 backends: until it gets nothing new", "ms", tuple(removed)),
        Figure("live", "failed requests in both edits, at 200 a second", "", tuple(failed)),
        Figure("live", f"streams cut in both edits, of {streams}", "", tuple(cut)),
        Figure("live", f"streams dead at the end without a word, of {streams}", "", (float(unaware),)),
    ]


def _cut_since(load: Load, began: float) -> int:
    return sum(not event.connected and event.at >= began for event in load.watches())


def _members(spec: LabSpec, options: Options) -> list[Figure]:
    node = spec.node(lab.holders(spec)[0])
    endpoint = f"{spec.nodes[0].address}:{extra.ETCD}"
    promoted, removed = [], []
    for run in range(options.runs):
        options.tell(f"live: member {run + 1} of {options.runs}")
        with extra.learner(spec, spec.nodes[0], f"extra{run}") as member:
            time.sleep(3.0)
            if endpoint in _endpoints(node, "etcd"):
                raise LabError(f"{endpoint} is a learner and got into the pool")
            began = extra.promote(spec, member)
            promoted.append(_until(f"{endpoint} is UP", lambda: endpoint in _up(node, "etcd"), began))
            began = time.monotonic()
            extra.remove(spec, member)
            removed.append(
                _until(f"{endpoint} is gone", lambda: endpoint not in _endpoints(node, "etcd"), began)
            )
    return [
        Figure("live", "etcd member promoted: until the server is UP", "ms", tuple(promoted)),
        Figure("live", "etcd member removed: until it is gone", "ms", tuple(removed)),
    ]


def replace(file: Path, text: str) -> None:
    """By rename, as an editor does."""
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.rename(file)


def _pool(text: str, endpoints: Sequence[str]) -> str:
    document = tomllib.loads(text)
    document["services"]["apiserver"]["backends"] = list(endpoints)
    return tomli_w.dumps(document)


def _up(node: LabNode, service: str) -> set[str]:
    return {str(each.endpoint) for each in _servers(node, service) if each.live}


def _endpoints(node: LabNode, service: str) -> set[str]:
    return {str(each.endpoint) for each in _servers(node, service)}


def _servers(node: LabNode, service: str) -> tuple[Server, ...]:
    table = Socket(node.directory / "admin.sock").ask("show stat -1 4 -1")
    return servers(table, (service,), time.time())


def _until(what: str, holds: Callable[[], bool], began: float) -> float:
    """Milliseconds from `began` (monotonic s) until it holds. LabError after half a minute."""
    while True:
        try:
            if holds():
                return (time.monotonic() - began) * 1000
        except EngineError:
            pass  # Just now haproxy is being replaced.
        if time.monotonic() - began > _TIMEOUT:
            raise LabError(f"not within {_TIMEOUT:.0f} s: {what}")
        time.sleep(_LOOK)
