"""What the agent does with an edited lbha.toml, without engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbha import apply, discovery
from lbha.agent.follow import Changed, Follower
from lbha.config import load, parse
from lbha.errors import ApplyError
from lbha.facts import Applied
from lbha.model import Cluster, Node, Pool
from lbha.render import render


@pytest.fixture
def laid(
    monkeypatch: pytest.MonkeyPatch, own_nodes: Callable[..., dict[str, Pool]]
) -> list[tuple[Cluster, Node]]:
    """Every cluster and node that was applied; nothing else happens."""
    seen: list[tuple[Cluster, Node]] = []

    def lay(cluster: Cluster, node: Node, *_: Any, **__: Any) -> apply.Report:
        seen.append((cluster, node))
        return apply.Report("applied")

    async def discover(cluster: Cluster, _: Path) -> dict[str, Pool]:
        return own_nodes(cluster)

    monkeypatch.setattr(apply, "apply", lay)
    monkeypatch.setattr(discovery, "discover_async", discover)
    return seen


async def follow(file: Path, cluster: Cluster, told: list[Applied]) -> None:
    """Until it wants to start afresh, or a second has passed."""
    follower = Follower(cluster, cluster.nodes[1], file, lambda: load(file), told.append)
    async with asyncio.timeout(1):
        await follower.run()


def test_a_node_is_no_peer_of_its_own_after_an_edit(
    tmp_path: Path, smallest: str, laid: list[tuple[Cluster, Node]], own_nodes: Callable[..., dict[str, Pool]]
) -> None:
    file = tmp_path / "lbha.toml"
    file.write_text(smallest + 'backends = ["10.0.0.9:2379"]\n')
    with pytest.raises(Changed) as changed:
        asyncio.run(follow(file, parse(smallest), []))
    cluster, node = laid[-1]
    assert cluster == load(file) == changed.value.cluster
    text = render(cluster, node, own_nodes(cluster), "eth0").files["keepalived.conf"]
    assert text.split("unicast_peer {")[1].split("}")[0].split() == ["10.0.0.11", "10.0.0.13"]


def test_a_new_address_of_this_node_reaches_the_engines(
    tmp_path: Path, smallest: str, laid: list[tuple[Cluster, Node]]
) -> None:
    file = tmp_path / "lbha.toml"
    file.write_text(smallest.replace("10.0.0.12", "10.0.0.22"))
    with pytest.raises(Changed):
        asyncio.run(follow(file, parse(smallest), []))
    assert laid[-1][1].address == "10.0.0.22"


def test_an_edit_just_before_the_agent_starts_is_not_missed(
    tmp_path: Path, smallest: str, laid: list[tuple[Cluster, Node]]
) -> None:
    file = tmp_path / "lbha.toml"
    older = parse(smallest)
    file.write_text(smallest.replace("10.0.0.100", "10.0.0.101"))
    with pytest.raises(Changed):
        asyncio.run(follow(file, older, []))
    assert laid[-1][0].vips == ("10.0.0.101",)


def test_a_file_without_this_node_is_refused(
    tmp_path: Path, smallest: str, laid: list[tuple[Cluster, Node]]
) -> None:
    file, told = tmp_path / "lbha.toml", list[Applied]()
    file.write_text(smallest.replace('cp2 = "10.0.0.12"\n', ""))
    with pytest.raises(TimeoutError):
        asyncio.run(follow(file, parse(smallest), told))
    assert told[0].result == "refused" and "cp2 is not in [nodes]" in told[0].text
    assert all(len(cluster.nodes) == 3 for cluster, _ in laid), "the running configuration stays"


def test_what_apply_refused_stays_refused_until_it_works(
    tmp_path: Path, smallest: str, laid: list[tuple[Cluster, Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert laid == []
    file, told = tmp_path / "lbha.toml", list[Applied]()
    file.write_text(smallest)

    def refuse(*_: Any, **__: Any) -> apply.Report:
        raise ApplyError("the disk is full")

    monkeypatch.setattr(apply, "apply", refuse)

    async def see() -> str | None:
        follower = Follower(parse(smallest), parse(smallest).nodes[1], file, lambda: load(file), told.append)
        task = asyncio.create_task(follower.run())
        for _ in range(5):
            follower._wake.set()
            await asyncio.sleep(0.15)
        task.cancel()
        return follower.refused

    assert asyncio.run(see()) == "the disk is full"
    assert [each.text for each in told] == ["the disk is full"], "told once"
