"""haproxy's `show stat` as facts. Pure. Columns by name, as management.txt (9.1) promises."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping

from lbha.facts import Server
from lbha.haproxy_text import SLOT, endpoint_of


def live_servers(table: str, services: Iterable[str]) -> dict[str, int]:
    """Service -> live servers in its checked pool, from the rows of backends (type 1)."""
    found = dict.fromkeys(services, 0)
    for row in _rows(table):
        if row["pxname"] in found and row["type"] == "1":
            found[row["pxname"]] = int(row["act"] or 0) + int(row["bck"] or 0)
    return found


def servers(table: str, services: Iterable[str], now: float) -> tuple[Server, ...]:
    """The servers of the checked pools, from the rows of servers (type 2); `now` in seconds since the epoch."""
    wanted = set(services)
    found = []
    for row in _rows(table):
        endpoint = endpoint_of(row["addr"])
        if row["pxname"] not in wanted or row["type"] != "2" or endpoint is None:
            continue
        slot = row["svname"].startswith(SLOT)
        if slot and row["status"].startswith("MAINT"):
            continue  # It carries no server.
        seconds = int(row["lastchg"]) if row["lastchg"].isdigit() else 0
        found.append(
            Server(
                service=row["pxname"],
                # A server that came live has its own name only after the next reload.
                name=row["addr"] if slot else row["svname"],
                endpoint=endpoint,
                status=row["status"],
                reason=_reason(row),
                since=round(now) - seconds,
                sessions=int(row["scur"] or 0),
            )
        )
    return tuple(found)


def _reason(row: Mapping[str, str]) -> str:
    """haproxy's last check in its own words: `L7STS 503`, `L4CON: Connection refused`."""
    words = " ".join(part for part in (row["check_status"].lstrip("* "), row["check_code"]) if part)
    told = row["last_chk"]
    return f"{words}: {told}" if told else words


def _rows(table: str) -> Iterator[dict[str, str]]:
    lines = table.strip().removeprefix("# ").splitlines()
    yield from csv.DictReader(lines)
