"""Which node this is, where somebody says so: --node, then LBHA_NODE."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lbha.config import parse
from lbha.errors import ConfigError
from lbha.host import find_node


def test_the_option_goes_before_the_environment(smallest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = parse(smallest)
    monkeypatch.setenv("LBHA_NODE", "cp2")
    assert find_node(cluster).name == "cp2"
    assert find_node(cluster, "cp3").name == "cp3"


@pytest.mark.parametrize("name", ["", "cp4", "CP1", "10.0.0.11", "cp1 ", "\x1b[2J\n", "\udcff", "x" * 9999])
def test_a_node_that_is_not_in_the_file(smallest: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cluster = parse(smallest)
    for explicit in (True, False) if name else (True,):
        if not explicit:
            monkeypatch.setenv("LBHA_NODE", name)
        with pytest.raises(ConfigError) as caught:
            find_node(cluster, name if explicit else None)
        told = str(caught.value)
        assert told.startswith('--node "' if explicit else 'LBHA_NODE "')
        assert told.endswith('" is not in [nodes]; use one of: cp1, cp2, cp3')
        assert told.isprintable()
        assert len(told) < 200


def test_a_node_that_is_named_needs_no_netlink(smallest: str) -> None:
    """pyroute2 takes longer to import than all else; who names the node does not pay for it."""
    program = (
        "import sys; from lbha.config import parse; from lbha.host import find_node; "
        "find_node(parse(sys.stdin.read()), 'cp1'); "
        "heavy = ('pyroute2', 'click', 'httpx', 'jinja2', 'ssl', 'difflib'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=smallest, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
