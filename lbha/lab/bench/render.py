"""Render and apply against ever more backends."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from lbha import config, discovery
from lbha.lab.bench.figures import Figure
from lbha.lab.bench.options import Options, lab_with
from lbha.lab.bench.timing import on_node
from lbha.lab.spec import LabNode, LabSpec
from lbha.lab.units import CONFIG, lbha_program
from lbha.render import render

SIZES = (10, 1_000, 10_000)


def measure(options: Options) -> Iterator[Figure]:
    """`render` alone, and the whole of `lbha apply` as an operator runs it. LabError or another LbhaError."""
    options.tell("render: starting a lab")
    with lab_with("lbha-script", 1) as spec:
        node = spec.nodes[0]
        before = tomllib.loads((node.directory / CONFIG).read_text())
        for size in SIZES:
            options.tell(f"render: {size} backends")
            yield from _one(spec, node, before, size, options.runs)


def _one(spec: LabSpec, node: LabNode, before: dict[str, object], size: int, runs: int) -> list[Figure]:
    file = node.directory / CONFIG
    apply = {"apply": [lbha_program(), "apply", "-c", str(file), "--node", node.name]}
    rendered, applied, unchanged = [], [], []
    for run in range(runs):
        # One less or one more each time, so that there is something to apply.
        text = tomli_w.dumps(with_backends(before, size - 1 + run % 2))
        cluster = config.parse(text)
        pools = discovery.discover(cluster, Path(cluster.paths.state_dir) / "discovery", keep=False)
        began = time.perf_counter()
        render(cluster, cluster.nodes[0], pools, "eth0")
        rendered.append((time.perf_counter() - began) * 1000)
        file.write_text(text)
        applied += _apply(spec, node, apply)
        unchanged += _apply(spec, node, apply)
    return [
        Figure("render", f"render, {size} backends", "ms", tuple(rendered)),
        Figure("render", f"lbha apply, {size} backends: one changed", "ms", tuple(applied)),
        Figure("render", f"lbha apply, {size} backends: nothing new", "ms", tuple(unchanged)),
    ]


def _apply(spec: LabSpec, node: LabNode, apply: dict[str, list[str]]) -> list[float]:
    return on_node(spec, node.name, apply, 1)["apply"]


def with_backends(document: dict[str, object], count: int) -> dict[str, object]:
    """That lbha.toml with one more service, whose servers are not there and are not looked for."""
    services = document["services"]
    assert isinstance(services, dict)
    many = {
        "kind": "tcp",
        "port": 7000,
        "backends": [f"10.200.{index // 250}.{index % 250 + 1}:7000" for index in range(count)],
        "check": {"interval": 3600, "fast_interval": 3600},
    }
    return document | {"services": services | {"many": many}}
