"""The drill: break one thing under load, and measure what clients see.

One run: wait until the lab is at rest, start the client, wait for a steady second, inject, watch until
clients have been served for 3 s without a failure, ask the watches, heal, wait until all is healthy, and look
for every acknowledged write.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lbha.errors import LabError
from lbha.lab import lab, status
from lbha.lab.client import TIMEOUT, WRITE_INTERVAL
from lbha.lab.faults import KINDS, impossible
from lbha.lab.holders import HolderWatch
from lbha.lab.load import TLS_TIMEOUT, WATCHES, Load
from lbha.lab.measure import figures, holder_changes, moved, steady_for, two_holders_ms, watch_figures
from lbha.lab.records import Attempt
from lbha.lab.spec import OWN_SETUPS, LabSpec
from lbha.timing import DRILL_REQUEST

_QUIET = 3.0
_LEAST = 6.0
"""Seconds that a run watches at least: a recipe's adverts may be missing for 3.6 s before anything happens."""

_LEAST_OF = {"etcd-quorum-loss": 20.0, "agent-freeze": 30.0}
"""Where harm would come later: of etcd's loss the apiservers learn first, then, three slow checks on, each
haproxy; an agent that stands still might be missed by whoever waits for it."""

_REST = {"lbha-agent": 4.0, "lbha-script": 4.0, "kubeadm": 8.0, "openshift": 8.0}
"""Seconds without a change of holder or priority until a lab is at rest: more than its scripts' interval
times rise."""

_REST_TIMEOUT = 90.0
_WARM_TIMEOUT = 60.0
_OLD = 2.0
"""Seconds that a watch is old: who takes the VIP hears once a second which connections there are."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured. Times in ms count from the injection; see `lbha.lab.measure` for each figure.

    `node` is whom the fault hit, `holders` who held the VIP from when on, `moved` whether it changed holder,
    `two_holders_ms` for how long more than one node with a cable held it, `recovered` whether clients were
    served again before the window (`window_s`) ended, `client_lag_ms` how late the client itself was at worst
    (large: the machine was too busy).
    """

    fault: str
    setup: str
    run: int
    node: str
    apiserver: str
    gap_ms: float
    requests: int
    failed: int
    cut: int
    last_failure_ms: float | None
    slowest_ms: float
    errors: dict[str, int]
    writes: int
    failed_writes: int
    write_gap_ms: float
    last_failed_write_ms: float | None
    acknowledged_writes: int
    lost_writes: int
    watches: int
    watches_dead: int
    watches_unaware: int
    watch_recovery_ms: float | None
    streams: int
    streams_dead: int
    streams_unaware: int
    stream_recovery_ms: float | None
    holders: list[tuple[float, list[str]]]
    moved: bool
    two_holders_ms: float
    recovered: bool
    window_s: float
    client_lag_ms: float


@dataclass(frozen=True, slots=True)
class Clients:
    """Who stays connected during a run, besides those that come anew: idle watches, and busy ones."""

    watches: int
    streams: int


DEFAULT_CLIENTS = Clients(watches=10, streams=0)


Tell = Callable[[str], None]
"""Told what a run does now, in two or three words."""


def known(faults: str) -> tuple[str, ...]:
    """The faults in a list with commas. LabError for one that the lab does not know."""
    names = tuple(faults.split(","))
    for name in names:
        if name not in KINDS:
            raise LabError(f"--faults: no fault {name!r}; there are {', '.join(KINDS)}")
    return names


def every(spec: LabSpec) -> tuple[str, ...]:
    """Every fault that can be done to this lab."""
    return tuple(kind for kind in KINDS if impossible(spec, kind) is None)


@contextmanager
def own_lab(setup: str, nodes: int, overrides: Path | None = None, stacked: bool = False) -> Iterator[LabSpec]:
    """A lab of that setup for as long as the `with` statement lasts, however it ends.

    `overrides` is merged into its lbha.toml, `stacked` lets its apiservers listen on 0.0.0.0; a recipe has
    neither.
    """
    name = f"d{os.getpid()}-{setup[:2]}"
    own = setup in OWN_SETUPS
    try:
        yield lab.up(
            name, nodes=nodes, setup=setup, overrides=overrides if own else None, stacked=stacked and own
        )
    finally:
        # An impatient second Ctrl-C must not leave half a lab.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            lab.down(name)
        finally:
            signal.signal(signal.SIGINT, before)


def one(spec: LabSpec, fault: str, run: int, clients: Clients, window: float, tell: Tell) -> Run:
    """One run of a fault on the holder (etcd-leader-kill: on the leader).

    LabError when the lab does not come to rest before it, or is not healthy again after it.
    """
    tell("coming to rest")
    rest(spec)
    with closing(HolderWatch(spec)) as holders, _load(spec, clients) as load:
        tell("warming up")
        warm(load)
        target = None if fault == "etcd-leader-kill" else lab.holders(spec)[0]
        injected = time.monotonic()
        try:
            node = lab.inject(spec, fault, target)
            done = time.monotonic()
            tell("watching")
            recovered = _watch(load, fault, injected, window)
            ended = time.monotonic()
            probed = load.probe()
            seen = holders.samples()
        finally:
            tell("healing")
            lab.heal(spec)
        lab.wait_healthy(spec, _REST_TIMEOUT)
        verdict = load.verify()
    requests = figures(load.requests(), injected, ended, done)
    writes = figures(load.writes(), injected, ended, done)
    changes = holder_changes(seen, injected)
    events = load.watches()
    watches = watch_figures([each for each in events if not each.busy], probed.unaware, injected)
    streams = watch_figures([each for each in events if each.busy], probed.unaware_busy, injected)
    return Run(
        fault=fault,
        setup=spec.setup,
        run=run,
        node=node,
        apiserver=spec.apiserver,
        gap_ms=requests.gap_ms,
        requests=requests.count,
        failed=requests.failed,
        cut=requests.cut,
        last_failure_ms=requests.last_failure_ms,
        slowest_ms=requests.slowest_ms,
        errors=requests.errors,
        writes=writes.count,
        failed_writes=writes.failed,
        write_gap_ms=writes.gap_ms,
        last_failed_write_ms=writes.last_failure_ms,
        acknowledged_writes=verdict.acknowledged,
        lost_writes=verdict.lost,
        watches=clients.watches,
        watches_dead=watches.dead,
        watches_unaware=watches.unaware,
        watch_recovery_ms=watches.recovery_ms,
        streams=clients.streams,
        streams_dead=streams.dead,
        streams_unaware=streams.unaware,
        stream_recovery_ms=streams.recovery_ms,
        holders=changes,
        moved=moved(changes),
        two_holders_ms=two_holders_ms(changes, (ended - injected) * 1000),
        recovered=recovered,
        window_s=round(ended - injected, 1),
        client_lag_ms=round(probed.lag * 1000, 1),
    )


def rest(spec: LabSpec) -> None:
    """Wait until the lab is healthy and neither holder nor priorities have changed for a while.

    LabError when it does not come to rest.
    """
    deadline = time.monotonic() + _REST_TIMEOUT
    before, since = None, time.monotonic()
    while True:
        now = status.gather(spec)
        state = (now.holders, tuple(node.vrrp for node in now.nodes))
        if state != before or status.problems(now):
            before, since = state, time.monotonic()
        elif time.monotonic() - since >= _REST[spec.setup]:
            return
        if time.monotonic() > deadline:
            why = "; ".join(status.problems(now)[:3]) or "priorities keep changing"
            raise LabError(f"lab {spec.name} did not come to rest in {_REST_TIMEOUT:.0f} s: {why}")
        time.sleep(0.5)


def _load(spec: LabSpec, clients: Clients) -> Load:
    """Many watches are as patient as client-go: this machine takes a while to serve them all."""
    many = clients.watches + clients.streams > WATCHES
    return Load(spec, clients.watches, clients.streams, TLS_TIMEOUT if many else 1.0)


def warm(load: Load) -> None:
    """Wait for a second in which everything succeeds and every watch is connected, and has been for `_OLD`."""
    deadline = time.monotonic() + _WARM_TIMEOUT
    while True:
        now = time.monotonic()
        connected = {event.index for event in load.watches() if event.connected and event.at < now - _OLD}
        if len(connected) == load.count and all(
            _full_second(attempts, now, interval)
            for attempts, interval in ((load.requests(), DRILL_REQUEST), (load.writes(), WRITE_INTERVAL))
        ):
            return
        if now > deadline:
            raise LabError(f"clients are not served steadily {_WARM_TIMEOUT:.0f} s after the load began")
        time.sleep(0.1)


def _full_second(attempts: Sequence[Attempt], now: float, interval: float) -> bool:
    recent = [attempt for attempt in attempts if attempt.end > now - 1.0]
    return len(recent) >= 0.8 / interval and not any(attempt.error for attempt in recent)


def _watch(load: Load, fault: str, injected: float, window: float) -> bool:
    """Wait until clients are served again; False when the window ends first."""
    least = min(window, _LEAST_OF.get(fault, _LEAST))
    while True:
        time.sleep(0.1)
        now = time.monotonic()
        quiet = steady_for(load.requests(), injected, now, TIMEOUT)
        if fault != "etcd-quorum-loss":  # Nothing can be written before it is healed.
            quiet = min(quiet, steady_for(load.writes(), injected, now, TIMEOUT))
        if quiet >= _QUIET and now - injected >= least:
            return True
        if now - injected >= window:
            return False


def save(path: Path, runs: Sequence[Run]) -> None:
    """Write the list of runs, by rename: an interrupted drill keeps what it has. LabError when it cannot."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(runs)) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise LabError(f"--json {path}: {error.strerror}") from None


def passed(runs: Sequence[Run]) -> bool:
    """Whether clients were served again in every run and no acknowledged write was lost."""
    return all(run.recovered and run.lost_writes == 0 for run in runs)
