"""What each key of lbha.toml is, its unit and what it may be: the words of docs/reference.md.

Beside the schema and not in it: `lbha check SERVICE` reads the schema every second and none of these words.
The tests hold both against each other: every key is here, and every bound is the one that the parser obeys.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbha.config.build import PROFILES
from lbha.config.services import BALANCES, REDIRECT_OFFSET
from lbha.config.values import PATH_MAX, RUN_DIR_MAX, SOCKET_MAX
from lbha.model import Kind, Listen, Mode


@dataclass(frozen=True, slots=True)
class Range:
    """From `lowest` to `highest`, both included, in steps of `step`."""

    lowest: float
    highest: float
    step: float = 1

    def __str__(self) -> str:
        text = f"{self.lowest:.10g} to {self.highest:.10g}"
        return text if self.step == 1 else f"{text}, steps of {self.step:g}"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `default` only where it is no constant but follows from something else."""

    about: str
    allowed: Range | tuple[str, ...] | str = ""
    unit: str = ""
    default: str = ""


_PORT = Range(1, 65535)
_COUNT = Range(1, 100)
_RUNS = Range(1, 60)
_CHECK_SECONDS = Range(0.01, 3600, 0.001)
_FILE = f"an absolute path, at most {PATH_MAX} characters"
_SOCKET = f"an absolute path, at most {SOCKET_MAX} characters"
_ADDRESS = "an IPv4 or IPv6 address"

KEYS: dict[str, dict[str, Key]] = {
    "cluster": {
        "name": Key("The cluster's name.", "letters, digits, `.`, `_`, `-`; at most 63"),
        "vip": Key("The address that clients use.", _ADDRESS, default="required, or `vips`"),
        "vips": Key(
            "Several of them, also of both families; they move together.",
            f"in place of `vip`; each {_ADDRESS}",
            default="`[vip]`",
        ),
        "interface": Key(
            "Where the VIP goes.", "at most 15 characters", default="the one with the node's address"
        ),
        "virtual_router_id": Key(
            "VRRP's number of this cluster; it must differ from every other VRRP router's on the segment.",
            Range(1, 255),
            default="a hash of `name`",
        ),
    },
    "services.NAME": {
        "kind": Key("The profile that sets ports, check and fallback.", tuple(Kind)),
        "port": Key("Where clients reach the service on the VIP.", _PORT),
        "target_port": Key("Where its servers listen.", _PORT, default="`port`"),
        "backends": Key(
            "Where its servers come from.",
            "`nodes`, `etcd-members`, `kubernetes`, `etcd-env:FILE`, `dns-srv:NAME`,"
            " or a list of `address[:port]`",
        ),
        "balance": Key("How haproxy chooses among the servers.", BALANCES),
        "listen": Key("How haproxy gets the connections to VIP:`port`.", tuple(Listen)),
        "redirect_port": Key(
            "Where haproxy listens on the VIP behind a redirect.",
            _PORT,
            default=f"`port` + {REDIRECT_OFFSET}; above {65535 - REDIRECT_OFFSET} `port` − {REDIRECT_OFFSET}",
        ),
        "token_file": Key('The bearer token for `backends = "kubernetes"`.', _FILE, default="none"),
    },
    "services.NAME.check": {
        "interval": Key("Between two checks of a server that is steadily up or down.", _CHECK_SECONDS, "s"),
        "fast_interval": Key("Between two checks of a server that is in doubt.", _CHECK_SECONDS, "s"),
        "timeout": Key("How long a check may take.", _CHECK_SECONDS, "s"),
        "rise": Key("Good checks in a row until a server is up.", _COUNT, "checks"),
        "fall": Key("Bad checks in a row until a server is down.", _COUNT, "checks"),
    },
    "services.NAME.tls": {
        "ca": Key(
            "The authorities (PEM) that the servers' certificates are verified with.", _FILE, default="none"
        ),
        "cert": Key("The client certificate (PEM) that checks present.", _FILE, default="none; with `key`"),
        "key": Key("Its key (PEM).", _FILE, default="none; with `cert`"),
    },
    "failover": {
        "profile": Key("Sets `advert_interval` and `down_timer_adverts`.", tuple(PROFILES)),
        "advert_interval": Key("Between two adverts of the holder.", Range(0.01, 40.95, 0.01), "s"),
        "down_timer_adverts": Key("Adverts missed until a backup takes over.", _COUNT, "adverts"),
        "failback": Key("The VIP returns to the preferred node when its haproxy recovers."),
        "vrrp_filter": Key("nftables drops VRRP from everybody but the peers."),
        "handover_rate": Key(
            "How fast clients are told that their connection died with the move of the VIP (agent mode).",
            Range(10, 100_000),
            "clients/s",
        ),
    },
    "health": {
        "mode": Key("Who judges: `lbha agent`, or keepalived's track scripts alone.", tuple(Mode)),
        "interval": Key("Between two runs of a track script.", _RUNS, "s"),
        "rise": Key("Good runs in a row until good.", _RUNS, "runs"),
        "fall": Key("Bad runs in a row until bad.", _RUNS, "runs"),
        "quarantine": Key(
            "After boot, a node takes over in this time only when nobody else can serve (agent mode).",
            Range(0, 3600, 0.001),
            "s",
        ),
    },
    "metrics": {
        "address": Key("Where haproxy's Prometheus exporter listens.", "a loopback address and a port"),
    },
    "peers": {
        "port": Key("Where agents hear one another, on each node's first address.", _PORT),
        "ca": Key("Whose certificates are accepted (PEM), from both sides.", _FILE),
        "cert": Key("The node's own certificate (PEM); it names the node's address.", _FILE),
        "key": Key("Its key (PEM).", _FILE),
    },
    "paths": {
        "lbha": Key("The program that keepalived runs.", _FILE, default="the `lbha` that renders"),
        "state_dir": Key("What outlives a reboot: last good answers, earlier configurations, events.", _FILE),
        "run_dir": Key(
            "The agent's socket, and what it tells keepalived.",
            f"an absolute path, at most {RUN_DIR_MAX} characters",
        ),
        "haproxy_cfg": Key("haproxy's configuration, which lbha writes.", _FILE),
        "haproxy_socket": Key("haproxy's admin socket.", _SOCKET),
        "haproxy_master_socket": Key("haproxy's master socket, for reloads.", _SOCKET),
        "keepalived_conf": Key("keepalived's configuration, which lbha writes.", _FILE),
        "keepalived_pid": Key("keepalived's pid file, for reloads.", _FILE),
    },
    "templates": {
        "directory": Key(
            "Your own templates, each in place of the one that comes with lbha.", _FILE, default="none"
        ),
    },
}
"""Table -> key -> what it is, in the order of the page."""
