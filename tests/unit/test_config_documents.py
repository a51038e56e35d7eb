"""A valid file becomes a Cluster that shows what it means and holds nothing that a configuration line obeys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import count
from typing import Any

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from lbha.config import BALANCES, PROFILES, effective, parse
from lbha.model import Cluster, Paths

names = st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
service_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
parts = st.from_regex(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,20}", fullmatch=True)
milliseconds = st.integers(10, 3_600_000).map(lambda number: number / 1000)
ports = st.integers(1, 65535).filter(lambda port: port != 8406)  # not the agents' own, which stays


def path(number: int) -> st.SearchStrategy[str]:
    """A path that is none of another number's, nor below one."""
    return st.lists(parts, max_size=4).map(lambda names: "/".join([f"/{number}", *names]))


def ipv4(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def ipv6(number: int) -> str:
    return f"fd00:0:0::{number & 65535:X}" if number % 2 else f"fd00::{number & 65535:x}:0"


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Valid cluster files with any of the optional keys, as TOML tables."""
    maybe = st.booleans()
    addresses = count(draw(st.integers(1, 30_000)), draw(st.integers(1, 1_000)))
    families = draw(st.sampled_from([(ipv4,), (ipv6,), (ipv4, ipv6), (ipv6, ipv4)]))
    vips = [family(next(addresses)) for family in families]
    if draw(maybe):
        vips.append(families[0](next(addresses)))
    cluster: dict[str, Any] = {"name": draw(names)}
    if len(vips) == 1 and draw(maybe):
        cluster["vip"] = vips[0]
    else:
        cluster["vips"] = vips
    if draw(maybe):
        cluster["interface"] = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", fullmatch=True))
    if draw(maybe):
        cluster["virtual_router_id"] = draw(st.integers(1, 255))
    nodes: dict[str, Any] = {}
    for name in draw(st.lists(names, min_size=1, max_size=5, unique_by=str.lower)):
        own = [family(next(addresses)) for family in draw(st.permutations(families))]
        nodes[name] = own[0] if len(own) == 1 and draw(maybe) else own
    chosen_ports = draw(st.lists(ports, min_size=9, max_size=9, unique=True))
    free = iter(chosen_ports)
    metrics = {"address": draw(st.sampled_from(["127.0.0.1", "127.1.2.3", "[::1]"])) + f":{next(free)}"}
    document = {"cluster": cluster, "nodes": nodes, "metrics": metrics, "services": {}}
    usable = service_names.filter(lambda name: name not in ("haproxy", "holder"))
    for number, name in enumerate(draw(st.lists(usable, min_size=1, max_size=4, unique=True))):
        backends = [ipv4(next(addresses)), f"{ipv4(next(addresses))}:{draw(ports)}"]
        backends.append(f"[{ipv6(next(addresses))}]:{draw(ports)}")
        document["services"][name] = draw(
            service(next(free), backends[: draw(st.integers(1, 3))], 100 + 9 * number)
        )
        # Any other port of the file may be the default one by chance.
        document["services"][name]["redirect_port"] = next(free)
        if document["services"][name].get("target_port") in chosen_ports:
            del document["services"][name]["target_port"]
    if draw(maybe):
        document["failover"] = draw(failover)
    if draw(maybe):
        document["health"] = {key: draw(st.integers(1, 60)) for key in ("interval", "rise", "fall")}
    if draw(maybe):
        document["templates"] = {"directory": draw(path(1))}
    chosen = draw(st.lists(st.sampled_from(sorted(Paths.__dataclass_fields__)), unique=True))
    document["paths"] = {key: draw(path(10 + index))[:95].rstrip("/.") for index, key in enumerate(chosen)}
    return document


failover = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from(sorted(PROFILES)),
        "advert_interval": st.integers(1, 4095).map(lambda number: number / 100),
        "down_timer_adverts": st.integers(1, 100),
        "failback": st.booleans(),
        "vrrp_filter": st.booleans(),
    },
)


@st.composite
def service(draw: st.DrawFn, port: int, listed: list[str], number: int) -> dict[str, Any]:
    maybe = st.booleans()
    kind = draw(st.sampled_from(["kube-apiserver", "etcd", "tcp"]))
    sources = ["nodes", listed, "dns-srv:_etcd._tcp.example.com."]
    sources += {
        "etcd": ["etcd-members", f"etcd-env:{draw(path(number))}"],
        "kube-apiserver": ["kubernetes"],
    }.get(kind, [])
    table: dict[str, Any] = {"kind": kind, "port": port, "backends": draw(st.sampled_from(sources))}
    if draw(maybe):
        table["target_port"] = draw(ports)
    if draw(maybe):
        table["listen"] = draw(st.sampled_from(["vip", "redirect", "auto"]))
    if draw(maybe):
        table["balance"] = draw(st.sampled_from(BALANCES))
    if table["backends"] == "kubernetes" and draw(maybe):
        table["token_file"] = draw(path(number + 1))
    if kind != "tcp" and draw(maybe):
        table["tls"] = draw(st.sampled_from([("ca",), ("cert", "key"), ("ca", "cert", "key")]))
        table["tls"] = {key: draw(path(number + 2 + index)) for index, key in enumerate(table["tls"])}
    if draw(maybe):
        times = dict.fromkeys(("interval", "fast_interval", "timeout"), milliseconds)
        counts = {key: st.integers(1, 100) for key in ("rise", "fall")}
        table["check"] = draw(st.fixed_dictionaries({}, optional=times | counts))
    return table


def strings(value: object) -> Iterator[str]:
    """Every text in a Cluster, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from strings(item)
    elif is_dataclass(value):
        for each in fields(value):
            yield from strings(getattr(value, each.name))


def sound(cluster: Cluster) -> None:
    """It shows what it means, and nothing in it has a meaning of its own in a configuration line."""
    assert parse(tomli_w.dumps(effective(cluster))) == cluster
    for text in strings(cluster):
        assert re.fullmatch(r"[A-Za-z0-9._/+:-]+", text, re.ASCII), text
        assert len(text) <= 265, text  # the longest: dns-srv: and a name


@given(documents())
@settings(max_examples=200, deadline=None)
def test_what_is_shown_means_the_same(document: dict[str, Any]) -> None:
    cluster = parse(tomli_w.dumps(document))
    sound(cluster)
    shown = effective(cluster)
    for section, table in document.items():
        for key, value in table.items():
            if (section, key) != ("cluster", "vip"):
                known = shown[section][key]
                assert type(known) is type(value) or section == "nodes"
                if not isinstance(value, (dict, list)) and section not in ("nodes", "metrics"):
                    assert known == value


def test_every_default_is_shown(smallest: str) -> None:
    """All that an operator can set is there, but what is off unless it is set."""
    shown = effective(parse(smallest))
    assert shown["cluster"] == {"name": "prod", "vips": ["10.0.0.100"], "virtual_router_id": 170}
    assert shown["nodes"] == {"cp1": "10.0.0.11", "cp2": "10.0.0.12", "cp3": "10.0.0.13"}
    assert shown["services"]["etcd"] == {
        "kind": "etcd",
        "port": 2379,
        "target_port": 2379,
        "listen": "auto",
        "redirect_port": 12379,
        "backends": "nodes",
        "balance": "leastconn",
        "check": {"interval": 1.0, "fast_interval": 0.5, "timeout": 2.0, "rise": 1, "fall": 3},
    }
    assert shown["failover"] == {
        "profile": "balanced",
        "advert_interval": 0.1,
        "down_timer_adverts": 6,
        "failback": False,
        "vrrp_filter": False,
        "handover_rate": 1000,
    }
    assert shown["health"] == {"mode": "agent", "interval": 1, "rise": 2, "fall": 2, "quarantine": 30.0}
    assert shown["metrics"] == {"address": "127.0.0.1:8404"}
    assert set(shown["paths"]) == set(Paths.__dataclass_fields__)
    assert "templates" not in shown
