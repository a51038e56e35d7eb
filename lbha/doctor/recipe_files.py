"""The files of a recipe, and how a check of one kind of file begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from lbha.doctor.fold import folded
from lbha.doctor.haproxy_conf import HaproxyCfg, Proxy
from lbha.doctor.model import DoesNotApply, Finding, NotChecked
from lbha.keepalived_conf import Instance, KeepalivedConf, Script


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was given on the command line."""

    keepaliveds: tuple[KeepalivedConf, ...] = ()
    haproxys: tuple[HaproxyCfg, ...] = ()

    def keepalived(self) -> tuple[KeepalivedConf, ...]:
        """Every keepalived.conf. DoesNotApply without one."""
        if not self.keepaliveds:
            raise DoesNotApply("no keepalived.conf was given")
        return self.keepaliveds

    def instances(self) -> tuple[tuple[KeepalivedConf, Instance], ...]:
        """Every VRRP instance, with its file. DoesNotApply without one."""
        found = tuple((conf, instance) for conf in self.keepalived() for instance in conf.instances)
        if not found:
            raise DoesNotApply("no vrrp_instance")
        return found

    def routers(self) -> dict[str, Nodes]:
        """The instances of each virtual router, one of each node: those of one name where every node has the
        same names, else the first of each. NotChecked where only one node's file is known."""
        self.instances()
        confs = [conf for conf in self.keepaliveds if conf.instances]
        if len(confs) < 2:
            raise NotChecked("one node's file alone does not tell; give each node's with --keepalived")
        named = [{instance.name: (conf, instance) for instance in conf.instances} for conf in confs]
        if any(each.keys() != named[0].keys() for each in named):
            return {"": tuple((conf, conf.instances[0]) for conf in confs)}
        return {name: tuple(each[name] for each in named) for name in named[0]}

    def haproxy(self) -> tuple[HaproxyCfg, ...]:
        """Every haproxy.cfg. DoesNotApply without one."""
        if not self.haproxys:
            raise DoesNotApply("no haproxy.cfg was given")
        return self.haproxys


_T = TypeVar("_T")
Nodes: TypeAlias = tuple[tuple[KeepalivedConf, Instance], ...]
Judge: TypeAlias = Callable[[_T], Iterable[Finding]]
Run: TypeAlias = Callable[[Recipe], Iterator[Finding]]


def each_instance(judge: Judge[Instance]) -> Run:
    """A check of every VRRP instance."""
    return _each(
        lambda recipe: ((conf.path, instance) for conf, instance in recipe.instances()), judge, "vrrp_instance"
    )


def each_router(judge: Judge[Nodes]) -> Run:
    """A check of every virtual router, over all nodes. Where there are several, they are told by name."""

    def run(recipe: Recipe) -> Iterator[Finding]:
        routers = recipe.routers()
        found: list[tuple[str, Finding]] = []
        ended: list[DoesNotApply | NotChecked] = []
        for name, nodes in routers.items():
            try:
                for finding in judge(nodes):
                    found.append((name, finding))  # noqa: PERF401 (what was found before a failure counts)
            except (DoesNotApply, NotChecked) as error:
                ended.append(error)
        yield from folded(found) if len(routers) > 1 else (finding for _, finding in found)
        unchecked = [error for error in ended if isinstance(error, NotChecked)]
        if unchecked or len(ended) == len(routers):
            raise (*unchecked, *ended)[0]

    return run


def each_script(judge: Judge[Script]) -> Run:
    """A check of every track script."""
    return _each(
        lambda recipe: ((conf.path, script) for conf in recipe.keepalived() for script in conf.scripts),
        judge,
        "vrrp_script",
    )


def each_keepalived(judge: Judge[KeepalivedConf]) -> Run:
    """A check of every keepalived.conf."""
    return _each(lambda recipe: ((conf.path, conf) for conf in recipe.keepalived()), judge, "keepalived.conf")


def each_pool(judge: Judge[Proxy]) -> Run:
    """A check of every backend and listen section with servers."""
    return _each(
        lambda recipe: (
            (f"{cfg.path} ({proxy.kind} {proxy.name})", proxy)
            for cfg in recipe.haproxy()
            for proxy in cfg.with_servers()
        ),
        judge,
        "server",
    )


def each_haproxy(judge: Judge[HaproxyCfg]) -> Run:
    """A check of every haproxy.cfg."""
    return _each(lambda recipe: ((cfg.path, cfg) for cfg in recipe.haproxy()), judge, "haproxy.cfg")


def _each(places: Callable[[Recipe], Iterable[tuple[str, _T]]], judge: Judge[_T], what: str) -> Run:
    """Nodes' files are mostly the same: what is found alike is told once. `what`: DoesNotApply where there is
    none."""

    def run(recipe: Recipe) -> Iterator[Finding]:
        found = list(places(recipe))
        if not found:
            raise DoesNotApply(f"no {what}")
        return folded((place, finding) for place, subject in found for finding in judge(subject))

    return run
