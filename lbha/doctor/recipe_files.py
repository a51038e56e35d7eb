"""The files of a recipe, and how a check of one kind of file begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from lbha.doctor.fold import folded
from lbha.doctor.haproxy_conf import HaproxyCfg, Proxy
from lbha.doctor.keepalived_conf import Instance, KeepalivedConf, Script
from lbha.doctor.model import DoesNotApply, Finding, NotChecked


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

    def nodes(self) -> tuple[tuple[KeepalivedConf, Instance], ...]:
        """The first instance of each node. NotChecked where only one node's file is known."""
        self.instances()
        found = tuple((conf, conf.instances[0]) for conf in self.keepaliveds if conf.instances)
        if len(found) < 2:
            raise NotChecked("one node's file alone does not tell; give each node's with --keepalived")
        return found

    def haproxy(self) -> tuple[HaproxyCfg, ...]:
        """Every haproxy.cfg. DoesNotApply without one."""
        if not self.haproxys:
            raise DoesNotApply("no haproxy.cfg was given")
        return self.haproxys


_T = TypeVar("_T")
Judge: TypeAlias = Callable[[_T], Iterable[Finding]]
Run: TypeAlias = Callable[[Recipe], Iterator[Finding]]


def each_instance(judge: Judge[Instance]) -> Run:
    """A check of every VRRP instance."""
    return _each(lambda recipe: ((conf.path, instance) for conf, instance in recipe.instances()), judge)


def each_script(judge: Judge[Script]) -> Run:
    """A check of every track script."""
    return _each(
        lambda recipe: ((conf.path, script) for conf in recipe.keepalived() for script in conf.scripts), judge
    )


def each_keepalived(judge: Judge[KeepalivedConf]) -> Run:
    """A check of every keepalived.conf."""
    return _each(lambda recipe: ((conf.path, conf) for conf in recipe.keepalived()), judge)


def each_pool(judge: Judge[Proxy]) -> Run:
    """A check of every backend and listen section with servers."""
    return _each(
        lambda recipe: (
            (f"{cfg.path} ({proxy.kind} {proxy.name})", proxy)
            for cfg in recipe.haproxy()
            for proxy in cfg.with_servers()
        ),
        judge,
    )


def each_haproxy(judge: Judge[HaproxyCfg]) -> Run:
    """A check of every haproxy.cfg."""
    return _each(lambda recipe: ((cfg.path, cfg) for cfg in recipe.haproxy()), judge)


def _each(places: Callable[[Recipe], Iterable[tuple[str, _T]]], judge: Judge[_T]) -> Run:
    """Nodes' files are mostly the same: what is found alike is told once."""

    def run(recipe: Recipe) -> Iterator[Finding]:
        return folded((place, finding) for place, subject in places(recipe) for finding in judge(subject))

    return run
