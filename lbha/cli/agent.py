"""`lbha agent`: one process a node; systemd runs it."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click

from lbha.cli.common import config_option, load_cluster, node_option
from lbha.errors import LbhaError
from lbha.model import Mode


@click.command()
@config_option
@node_option
def command(config_file: Path, node_name: str | None) -> int:
    """Watch, decide, and keep haproxy and keepalived as lbha.toml says, until SIGTERM.

    SIGHUP looks at everything again. What keepalived does never depends on this process: when it ends, nothing
    moves. Exit codes: 0 stopped, or [health] mode = "script"; 1 a fault; 2 misuse.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return asyncio.run(_run(config_file, node_name))


async def _run(config_file: Path, node_name: str | None) -> int:
    from lbha import host
    from lbha.agent import journal
    from lbha.agent.follow import Changed
    from lbha.agent.loop import Agent, Stopped
    from lbha.agent.notify import Notifier

    notifier, cluster = Notifier(), load_cluster(config_file)
    agent: Agent | None = None
    while True:
        if cluster.health.mode is Mode.SCRIPT:
            click.echo('lbha: [health] mode = "script": keepalived\'s scripts decide, no agent is needed')
            return 0
        # In a thread: netlink has an event loop of its own, which cannot run inside of this one.
        node = await asyncio.to_thread(host.find_node, cluster, node_name)
        journal.set_up({"LBHA_CLUSTER": cluster.name, "LBHA_NODE": node.name})
        agent = Agent(cluster, node, config_file, lambda: load_cluster(config_file), notifier, agent)
        try:
            await agent.run()
        except Changed as changed:
            cluster = changed.cluster
        except Stopped:
            notifier.stopping()
            return 0
        except ExceptionGroup as group:
            raise LbhaError("; ".join(f"{type(each).__name__}: {each}" for each in group.exceptions)) from group
