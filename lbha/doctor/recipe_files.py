"""The files of a recipe, and how a check of one kind of file begins."""

from __future__ import annotations

from dataclasses import dataclass

from lbha.doctor.haproxy_conf import HaproxyCfg
from lbha.doctor.keepalived_conf import Instance, KeepalivedConf
from lbha.doctor.model import DoesNotApply, NotChecked


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was given on the command line."""

    keepaliveds: tuple[KeepalivedConf, ...] = ()
    haproxys: tuple[HaproxyCfg, ...] = ()

    def instances(self) -> tuple[tuple[KeepalivedConf, Instance], ...]:
        """Every VRRP instance, with its file. DoesNotApply without one."""
        found = tuple((conf, instance) for conf in self.keepaliveds for instance in conf.instances)
        if not found:
            raise DoesNotApply("no keepalived.conf with a vrrp_instance was given")
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
