"""Many runs of the drill, one setup after the other, and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lbha.errors import LabError
from lbha.lab import drill
from lbha.lab.drill import DEFAULT_CLIENTS, Clients, Run
from lbha.lab.faults import impossible
from lbha.lab.spec import LabSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `faults` None: every one that the setup can have. `given`: a lab that is up, instead of one
    of its own for each setup. `window` in s; `overrides` is TOML merged into the lbha.toml of own labs, whose
    apiservers listen on 0.0.0.0 with `stacked`."""

    setups: tuple[str, ...]
    faults: tuple[str, ...] | None = None
    runs: int = 1
    clients: Clients = DEFAULT_CLIENTS
    nodes: int = 3
    window: float = 60.0
    overrides: Path | None = None
    given: LabSpec | None = None
    stacked: bool = False


class Series:
    """The runs of one plan. `results` and `broken` (why some runs have none) grow while it runs.

    `tell` hears in a few words what is done now; `expect` how many runs there will be in all; `ran` is called
    after each.
    """

    def __init__(
        self, plan: Plan, tell: Callable[[str], None], expect: Callable[[int], None], ran: Callable[[], None]
    ) -> None:
        self.results: list[Run] = []
        self.broken: list[str] = []
        self._plan, self._tell, self._expect, self._ran = plan, tell, expect, ran
        self._expected = 0

    def run(self) -> None:
        """All of it. A lab that does not get well after a fault is replaced. LabError when none starts."""
        plan = self._plan
        for setup in plan.setups:
            todo: list[tuple[str, int]] | None = None
            while todo is None or todo:
                self._tell(f"{setup}: starting a lab")
                own = drill.own_lab(setup, plan.nodes, plan.overrides, plan.stacked)
                with nullcontext(plan.given) if plan.given else own as spec:
                    if todo is None:
                        todo = self._todo(spec)
                    self._until_broken(spec, todo)
                if plan.given:
                    break

    def _todo(self, spec: LabSpec) -> list[tuple[str, int]]:
        faults = []
        for fault in self._plan.faults or drill.every(spec):
            if why := impossible(spec, fault):
                self.broken.append(f"left out: {why}")
            else:
                faults.append(fault)
        todo = [(fault, number) for fault in faults for number in range(1, self._plan.runs + 1)]
        self._expected += len(todo)
        self._expect(self._expected)
        return todo

    def _until_broken(self, spec: LabSpec, todo: list[tuple[str, int]]) -> None:
        """Do what is left in `todo`, until the lab does not get well any more: then it must be replaced."""
        while todo:
            fault, number = todo.pop(0)
            label = f"{spec.setup} {fault} {number}/{self._plan.runs}"
            try:
                run = drill.one(
                    spec, fault, number, self._plan.clients, self._plan.window, partial(self._tell_of, label)
                )
            except LabError as error:
                self.broken.append(f"{label}: {error}")
                return
            else:
                self.results.append(run)
            finally:
                self._ran()

    def _tell_of(self, label: str, what: str) -> None:
        self._tell(f"{label}: {what}")
