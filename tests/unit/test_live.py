"""What is said to a running haproxy so that it serves what a file wants: the diff, against a simulated one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbha import haproxy_text, live, overrides, reaper
from lbha.config import parse
from lbha.errors import EngineError, LbhaError
from lbha.live import CMAINT, FDRAIN, FMAINT, Command, Server
from lbha.model import Endpoint, Paths, Pool
from lbha.render import render
from lbha.servers import set_server_state

SLOT = haproxy_text.SLOT


def cfg(*ports: int, backend: str = "web") -> str:
    """A backend with a server s1, s2 … at each port."""
    lines = "".join(f"    server s{port} 10.0.0.1:{port}\n" for port in ports)
    return f"global\nbackend {backend}\n{lines}    server-template {SLOT} 1-3 127.0.0.1:1 disabled\n"


def server(name: str, port: int, admin: int = 0, *, up: bool = True) -> Server:
    return Server("web", name, Endpoint("10.0.0.1", port), up and not admin & FMAINT, admin)


def slots(number: int) -> list[Server]:
    return [
        Server("web", f"{SLOT}{n + 1}", Endpoint("127.0.0.1", 1), False, FMAINT | CMAINT) for n in range(number)
    ]


def words(text: str, actual: Iterable[Server], **states: str) -> list[str] | None:
    found = live.commands(text, list(actual), {f"web/{name}": state for name, state in states.items()})
    return found and [f"{each.name} {each.word}" for each in found]


def test_a_new_server_enters_through_a_slot_and_never_as_healthy() -> None:
    assert words(cfg(1, 2), [server("s1", 1), *slots(1)]) == [
        f"{SLOT}1 addr 10.0.0.1 port 2",
        f"{SLOT}1 state drain",
        f"{SLOT}1 health down",
        f"{SLOT}1 state ready",
    ]
    assert live.commands(cfg(1, 2), [server("s1", 1)], {}) is None  # no slot is free


def test_a_server_leaves_when_another_serves_and_not_before() -> None:
    assert words(cfg(1), [server("s1", 1), server("s2", 2)]) == ["s2 state drain"]
    alone = [server("s1", 1, up=False), server("s2", 2)]
    assert words(cfg(1), alone) == [] and live.waiting(cfg(1), alone)
    assert words(cfg(1), [server("s1", 1, up=False), server("s2", 2, up=False)]) == ["s2 state drain"]
    gone = [server("s1", 1), server("s2", 2, FDRAIN)]
    assert words(cfg(1), gone) == [] and not live.waiting(cfg(1), gone)
    assert live.unwanted(cfg(1), gone) == (gone[1],)


def test_a_server_returns_under_the_name_that_carries_it() -> None:
    assert words(cfg(1, 2), [server("s1", 1), server("s2", 2, FDRAIN)]) == ["s2 state ready"]
    assert words(cfg(1, 2), [server("s1", 1), server(f"{SLOT}1", 2, FDRAIN)]) == [
        f"{SLOT}1 health down",
        f"{SLOT}1 state ready",
    ]
    assert words(cfg(1, 2), [server("s1", 1), server("s2", 2, FMAINT), *slots(1)]) == [
        "s2 state drain",
        "s2 health down",
        "s2 state ready",
    ]


def test_what_was_changed_behind_our_back_is_set_right() -> None:
    assert words(cfg(1), [replace(server("s1", 1), weighted=False)]) == ["s1 weight 100%"]
    assert words(cfg(1), [server("s1", 1, FMAINT)]) == ["s1 state drain", "s1 health down", "s1 state ready"]
    moved = [server("s1", 9), *slots(1)]
    assert words(cfg(1), moved)[0] == f"{SLOT}1 addr 10.0.0.1 port 1"  # type: ignore[index]


def test_what_the_operator_wants_stays() -> None:
    both = [server("s1", 1), server("s2", 2)]
    assert words(cfg(1, 2), both, s2="drain") == ["s2 state drain"]
    assert words(cfg(1, 2), both, s2="maint") == ["s2 state maint"]
    assert words(cfg(1, 2), [both[0], server("s2", 2, FDRAIN)], s2="drain") == []
    assert words(cfg(1, 2), [both[0], server("s2", 2, FMAINT)], s2="maint") == []
    # The only wanted one that is left is drained: the one that should leave stays.
    assert words(cfg(1), [server("s1", 1, FDRAIN), server("s2", 2)], s1="drain") == []
    text = cfg(1).replace("backend web", "backend web.open")
    assert live.commands(text, [replace(both[0], backend="web.open")], {"web/s1": "drain"}) == [
        Command("web.open", "s1", "state drain")
    ]


def test_a_backend_that_says_more_of_a_server_is_left_to_reloads() -> None:
    for own in (
        "    server s2 10.0.0.1:2 backup\n",
        "    server s2 name.example:2\n",
        "    server-template dyn 3 name.example:2\n",
    ):
        text = cfg(1) + own
        assert haproxy_text.pools(text) == {}
        assert live.commands(text, [server("s1", 1), server("dyn1", 7)], {}) == []
        assert own.rstrip() in haproxy_text.structure(text)
    assert haproxy_text.structure(cfg(1)) == haproxy_text.structure(cfg(2, 3))
    peers = "peers p\n    server a 10.0.0.1:99\n"
    assert haproxy_text.pools(peers) == {}


STATE_LINE = "3 web {id} {name} 10.0.0.1 {op} {admin} 1 1 {since} 6 3 4 6 0 0 0 - {port} - 0 0 - - 0"


def test_a_server_in_a_slot_has_its_real_name_in_the_state_for_a_reload() -> None:
    rows = (
        STATE_LINE.format(id=1, name="s1", op=2, admin=0, since=9, port=1),
        STATE_LINE.format(id=2, name="s2", op=0, admin=1, since=9, port=2),
        STATE_LINE.format(id=3, name=f"{SLOT}1", op=0, admin=4, since=9, port=3),
        STATE_LINE.format(id=4, name=f"{SLOT}2", op=0, admin=5, since=9, port=1),
        STATE_LINE.format(id=5, name=f"{SLOT}3", op=2, admin=12, since=9, port=7),
    )
    state = "1\n# be_id be_name\n" + "\n".join(rows) + "\n"
    kept = [line.split() for line in live.state_for(cfg(1, 2, 3), state, {}).splitlines()[2:]]
    assert [(row[3], row[5], row[6], row[18]) for row in kept] == [
        ("s1", "2", "0", "1"),
        ("s3", "0", "0", "3"),  # it is down, and stays so; s2 was not checked, and starts as new
    ]
    kept = [
        line.split()
        for line in live.state_for(cfg(1, 2, 3), state, {"web/s2": "maint", "web/s3": "drain"}).splitlines()
    ]
    assert [(row[3], row[6]) for row in kept[2:]] == [("s1", "0"), ("s2", "1"), ("s3", "8")]


def test_every_answer_is_judged() -> None:
    addr, ready = Command("web", "s1", "addr 10.0.0.1 port 2"), Command("web", "s1", "state ready")
    assert str(addr) == "set server web/s1 addr 10.0.0.1 port 2"
    assert addr.accepted("IP changed from '127.0.0.1' to '10.0.0.1', port changed from '1' to '2'\n\n")
    assert addr.accepted("no need to change the addr, no need to change the port by 'stats socket command'\n\n")
    assert not addr.accepted("Invalid addr 'x' by 'stats socket command'\n\n") and not addr.accepted("\n")
    assert ready.accepted("\n") and not ready.accepted("No such server.\n\n")


class Simulated:
    """A haproxy's servers. Those that are checked take the health of their address."""

    def __init__(self, servers: Iterable[Server], healthy: frozenset[int]) -> None:
        self.servers = {each.name: each for each in servers}
        self.healthy = healthy

    def say(self, command: Command) -> None:
        now = self.servers[command.name]
        verb, what, *more = command.word.split()
        if verb == "addr":
            now = replace(now, endpoint=Endpoint(what, int(more[1])))
        elif verb == "weight":
            now = replace(now, weighted=True)
        elif verb == "health":
            now = replace(now, up=False)
        elif what == "maint":
            now = replace(now, up=False, admin=now.admin | FMAINT)
        else:
            up = now.up or now.parked  # out of MAINT it is taken for healthy
            bits = FDRAIN if what == "drain" else 0
            now = replace(now, up=up, admin=now.admin & CMAINT | bits)
        self.servers[command.name] = now

    def check(self) -> None:
        for name, now in self.servers.items():
            if not now.parked:
                self.servers[name] = replace(now, up=now.endpoint.port in self.healthy)

    @property
    def serving(self) -> list[Server]:
        return [each for each in self.servers.values() if each.serves]


PORTS = st.integers(1, 6)
ADMIN = st.sampled_from([0, FDRAIN, FMAINT])


@given(
    named=st.dictionaries(PORTS, ADMIN, min_size=1),
    in_slots=st.lists(st.tuples(PORTS, ADMIN), max_size=3),
    free=st.integers(0, 8),
    wanted=st.sets(PORTS, min_size=1),
    healthy=st.frozensets(PORTS),
    operator=st.dictionaries(PORTS, st.sampled_from(["drain", "maint"]), max_size=2),
)
def test_the_commands_lead_there_and_never_empty_the_pool(
    named: dict[int, int],
    in_slots: list[tuple[int, int]],
    free: int,
    wanted: set[int],
    healthy: frozenset[int],
    operator: dict[int, str],
) -> None:
    start = [server(f"s{port}", port, admin, up=port in healthy) for port, admin in named.items()]
    start += [
        server(f"{SLOT}9{n}", port, admin | CMAINT, up=port in healthy)
        for n, (port, admin) in enumerate(in_slots)
    ]
    haproxy, text = Simulated([*start, *slots(free)], healthy), cfg(*sorted(wanted))
    asked = {f"web/s{port}": state for port, state in operator.items()}
    for _ in range(3 + len(in_slots)):  # of several that carry one server, each round parks one
        found = live.commands(text, list(haproxy.servers.values()), asked)
        if found is None:
            assert free < len(wanted)
            return
        for command in found:
            before = haproxy.serving
            haproxy.say(command)
            if not operator:
                assert haproxy.serving or not before
            assert all(each.endpoint.port in healthy for each in haproxy.serving)  # none unchecked
        haproxy.check()
    assert found == []
    ready = {port for port in wanted if port not in operator}
    serves = {each.endpoint.port for each in haproxy.serving}
    assert serves >= ready & healthy
    if ready & healthy:
        assert serves == ready & healthy
    else:
        assert not serves & set(operator) & wanted
    for port, state in operator.items():
        carrier = live.running_name(text, list(haproxy.servers.values()), "web", f"s{port}")
        if port in wanted:
            assert carrier is not None and (carrier.parked if state == "maint" else carrier.draining)


def test_the_rendered_pools_are_understood(smallest: str, own_nodes: Callable[..., dict[str, Pool]]) -> None:
    cluster = parse(smallest)
    text = render(cluster, cluster.nodes[0], own_nodes(cluster), "eth0").files["haproxy.cfg"]
    assert set(haproxy_text.pools(text)) == {"apiserver", "apiserver.open", "etcd", "etcd.open"}
    assert haproxy_text.pools(text)["etcd"]["cp2"] == Endpoint("10.0.0.12", 2379)
    assert text.count(f"server-template {SLOT} 1-{live.SLOTS} 127.0.0.1:1 disabled") == 4


def test_overrides_are_kept_and_a_broken_file_is_one_line(tmp_path: Path) -> None:
    assert overrides.read(tmp_path) == {}
    overrides.write(tmp_path, {"etcd/cp2": "drain"})
    assert overrides.read(tmp_path) == {"etcd/cp2": "drain"}
    overrides.path(tmp_path).write_text('{"etcd/cp2": "off"}')
    with pytest.raises(EngineError, match=r"servers\.json") as caught:
        overrides.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("service", "name", "state", "problem"),
    [
        ("wep", "s1", "drain", "did you mean web?"),
        ("web", "s3", "drain", "use one of: s1"),
        ("web", "s1", "off", "use drain, maint, ready"),
        ("web", "s1", "drain", "haproxy does not run"),
    ],
)
def test_an_unknown_server_is_told_with_a_suggestion(
    tmp_path: Path, service: str, name: str, state: str, problem: str
) -> None:
    (tmp_path / "haproxy.cfg").write_text(cfg(1))
    files = {
        "haproxy_cfg": "haproxy.cfg",
        "haproxy_socket": "a",
        "haproxy_master_socket": "m",
        "state_dir": "s",
    }
    paths = Paths(**{key: str(tmp_path / path) for key, path in files.items()})
    with pytest.raises(LbhaError) as caught:
        set_server_state(paths, service, name, state)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_which_servers_of_an_old_worker_are_dead() -> None:
    now = [server("s1", 1), server("s2", 2, up=False), replace(server("s2", 2), backend="web.open")]
    now += [server("s3", 3, up=False), server("s4", 4, FMAINT)]
    theirs = [server(f"s{port}", port) for port in (1, 2, 3, 4, 5)]
    assert reaper._dead(theirs, now, settled=False) == {("web", "s3")}
    assert reaper._dead(theirs, now, settled=True) == {("web", "s3"), ("web", "s4"), ("web", "s5")}
