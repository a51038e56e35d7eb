"""`lbha plan` for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lbha.forecast.bounds import Bound, Stage
from lbha.forecast.change import Change, Fate, NodeChange
from lbha.forecast.measured import Measured
from lbha.forecast.order import Step
from lbha.forecast.proof import Proof

GOOD, BAD = "green", "red"


def bounds(
    bounds: Sequence[Bound], measured: Sequence[Measured | None], service: str, drilled: bool
) -> RenderableType:
    """One mode's table, and where its times come from. `drilled`: a drill's figures stand beside them."""
    table = _table(f"mode {bounds[0].mode}: the longest that a fault of the holder may take, in seconds")
    table.add_column("fault", no_wrap=True)
    for heading in ("VIP", "detection", "election", "skew", "VIP there", "servers", f"clients of {service}"):
        table.add_column(heading, justify="right")
    if drilled:
        table.add_column("as the drill sees it", justify="right")
        table.add_column("measured", justify="right", no_wrap=True)
    for bound, found in zip(bounds, measured, strict=True):
        row = [Text(bound.fault), Text("moves" if bound.moves else "stays")]
        row += [
            Text(_seconds(bound.of(stage) or None)) for stage in (Stage.DETECTION, Stage.ELECTION, Stage.SKEW)
        ]
        row += [
            Text(_seconds(bound.vip) if bound.moves else "-"),
            Text(_seconds(bound.of(Stage.SERVERS) or None)),
            Text("no bound" if bound.clients is None else _seconds(bound.clients)),
        ]
        table.add_row(*row, *(_measured(found) if drilled else ()))
    return Group(table, Text(), _sources(bounds))


def _measured(found: Measured | None) -> tuple[Text, ...]:
    if found is None:
        return Text("-"), Text("-")
    told = f"{found.median:.2f} ({found.worst:.2f})"
    if found.above:
        return Text(_seconds(found.allowed)), Text(f"{told} ABOVE in {found.above} of {found.runs}", BAD)
    return Text(_seconds(found.allowed)), Text(told, GOOD)


def _sources(bounds: Sequence[Bound]) -> RenderableType:
    """Each part once, with the faults that it is of; then what a number does not say."""
    table = _table("where the times come from")
    for heading, ratio in (("part", None), ("s", None), ("of", 2), ("source", 3)):
        table.add_column(heading, ratio=ratio, justify="right" if heading == "s" else "left")
    parts: dict[tuple[str, float, str], list[str]] = {}
    notes: dict[str, list[str]] = {}
    for bound in bounds:
        for part in bound.parts:
            parts.setdefault((part.stage.value, part.seconds, part.source), []).append(bound.fault)
        if bound.note:
            notes.setdefault(bound.note, []).append(bound.fault)
    order = [stage.value for stage in Stage]
    for (stage, seconds, source), faults in sorted(parts.items(), key=lambda item: order.index(item[0][0])):
        table.add_row(stage, f"{seconds:.3f}", ", ".join(faults), source)
    for note, faults in notes.items():
        table.add_row("note", "", ", ".join(faults), note)
    return table


def proof(found: Sequence[Proof]) -> RenderableType:
    """A line each."""
    lines = []
    for each in found:
        setting = f"mode {each.mode}, failback {'on' if each.failback else 'off'}, {each.nodes} nodes"
        if each.wrong:
            lines.append(Text(f"{setting}: the wrong node is elected: {each.wrong}", BAD))
            continue
        how = (
            "elected one by one" if each.compared == each.situations else f"by {each.compared:,} pairs of nodes"
        )
        lines.append(Text(f"{setting}: {each.situations:,} situations, all right ({how})", GOOD))
    return Group(*lines)


def change(found: Change, steps: Sequence[Step]) -> RenderableType:
    """What happens to each node, what is refused, and the order."""
    nodes = _table("what changes")
    for heading in ("node", "", "on it"):
        nodes.add_column(heading)
    for node in found.nodes:
        nodes.add_row(node.node, node.fate.value, _touched(node))
    parts: list[RenderableType] = [nodes, Text()]
    for refusal in found.refusals:
        told = f"refused node by node: {refusal.what} {refusal.before} -> {refusal.after}: {refusal.why}"
        parts.append(Text(told, BAD))
    if not any(node.fate is Fate.STAYS for node in found.nodes):
        title = "the safe way: without the VIP in between (with it: first a file with the nodes of both)"
    else:
        title = "the safe way: all at once" if found.refusals else "the order, one node after the other"
    table = _table(title)
    for heading, ratio in (("", None), ("node", None), ("do", 3), ("why", 2)):
        table.add_column(heading, ratio=ratio)
    for number, step in enumerate(steps, 1):
        table.add_row(str(number), step.node, Text(step.do), step.why)
    return Group(
        *parts,
        table,
        Text("If another node holds the VIP (lbha status), take that one in the place of the holder."),
    )


def _touched(node: NodeChange) -> str:
    if node.fate is not Fate.STAYS:
        return ""
    words = [f"{name} restarts" for name in node.restarts]
    words += [f"{name} reloads" for name in node.reloads if name not in node.restarts]
    if node.adjusted:
        words.append("haproxy's servers change without a reload")
    return ", ".join(words) or "nothing reloads"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
