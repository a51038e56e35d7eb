"""Every mistake in a cluster file is one line that names file, key, value and what would do; exit code 2."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lbha.config import parse
from lbha.errors import ConfigError

CP1 = 'cp1 = "10.0.0.11"'
CP2 = 'cp2 = "10.0.0.12"'
NODES = f'[nodes]\n{CP1}\n{CP2}\ncp3 = "10.0.0.13"\n'
VIP = 'vip  = "10.0.0.100"'
NAME = 'name = "prod"'
ETCD = '[services.etcd]\nkind = "etcd"\n'
APISERVER = 'kind = "kube-apiserver"'
SERVICES = f"[services.apiserver]\n{APISERVER}\n\n{ETCD}"
LONG = "/" + "x" * 200


@dataclass(frozen=True)
class Mistake:
    """What to put in the smallest file in place of `old` ("": at its end), and what the message must hold."""

    old: str
    new: str
    key: str
    value: str
    cure: str

    def text(self, smallest: str) -> str:
        assert self.old in smallest
        return smallest.replace(self.old, self.new) if self.old else smallest + self.new


M = Mistake

MISTAKES = {
    # unknown keys, at every level, with a suggestion
    "unknown-section": M("", "[service.x]\n", "service", "", 'did you mean "services"?'),
    "unknown-section-far": M("", "[zzz]\n", "zzz", "", "use one of: cluster, nodes, services"),
    "unknown-top-key": M("[cluster]", "x = 1\n[cluster]", "x", "", "use one of: cluster"),
    "unknown-cluster": M(VIP, f"{VIP}\nvirtual_router = 3", "cluster.virtual_router", "", 'router_id"'),
    "unknown-service": M("", "target-port = 1\n", "services.etcd.target-port", "", '"target_port"'),
    "unknown-check": M("", "check.intervall = 1\n", "services.etcd.check.intervall", "", '"interval"'),
    "unknown-tls": M("", 'tls.crt = "/x"\n', "services.etcd.tls.crt", "", '"cert"'),
    "unknown-failover": M("", '[failover]\nprofil = "fast"\n', "failover.profil", "", '"profile"'),
    "unknown-health": M("", "[health]\nraise = 2\n", "health.raise", "", '"rise"'),
    "unknown-metrics": M("", '[metrics]\nadress = "x"\n', "metrics.adress", "", '"address"'),
    "unknown-paths": M("", '[paths]\nhaproxy_conf = "/x"\n', "paths.haproxy_conf", "", '"haproxy_cfg"'),
    "unknown-templates": M("", '[templates]\ndir = "/x"\n', "templates.dir", "", "use one of: directory"),
    "unknown-odd": M("", '"a b] - at `$.x" = 1\n', 'services.etcd."a b] - at `$.x"', "", "use one of: kind"),
    "unknown-empty": M("", '"" = 1\n', 'services.etcd.""', "", "use one of: kind"),
    # wrong types
    "name-number": M(NAME, "name = 7", "cluster.name", "7", "write text in quotes"),
    "vips-text": M(VIP, 'vips = "10.0.0.100"', "cluster.vips", '"10.0.0.100"', "write a list"),
    "vips-item": M(VIP, "vips = [1]", "cluster.vips[0]", "1", "write text in quotes"),
    "vip-date": M(VIP, "vip = 2026-01-01", "cluster.vip", "2026-01-01", "write text in quotes"),
    "port-text": M("", 'port = "2379"\n', "services.etcd.port", '"2379"', "write a whole number"),
    "port-bool": M("", "port = true\n", "services.etcd.port", "true", "write a whole number"),
    "port-float": M("", "port = 2379.0\n", "services.etcd.port", "2379.0", "write a whole number"),
    "interval-bool": M("", "check.interval = true\n", "services.etcd.check.interval", "true", "write a number"),
    "handover-rate-low": M(
        "", "[failover]\nhandover_rate = 9\n", "failover.handover_rate", "9", "from 10 to 100000"
    ),
    "handover-rate-fraction": M(
        "", "[failover]\nhandover_rate = 10.5\n", "failover.handover_rate", "10.5", "write a whole number"
    ),
    "failback-number": M("", "[failover]\nfailback = 1\n", "failover.failback", "1", "write true or false"),
    "check-list": M("", "check = [1]\n", "services.etcd.check", "[1]", "write a table"),
    "backends-number": M("", "backends = 3\n", "services.etcd.backends", "3", "(\"…\") or a list"),
    "backends-item": M("", 'backends = ["10.0.0.1", 2]\n', "services.etcd.backends[1]", "2", "text in quotes"),
    "section-list": M("", "[[health]]\n", "health", "[{}]", "write a table"),
    "services-list": M(
        SERVICES, "[[services]]\n", "services", "[{}]", "[services.apiserver]"
    ),
    "service-number": M(ETCD, "[services]\netcd = 5\n", "services.etcd", "5", "write a table"),
    "nodes-list": M(
        NODES,
        "[[nodes]]\n", "nodes", "[{}]", "write [nodes] with a line for each node",
    ),
    "node-number": M(CP1, "cp1 = 10", "nodes.cp1", "10", 'write "10.0.0.11"'),
    "node-table": M(CP1, "cp1 = { address = 1 }", "nodes.cp1", "{ … }", 'write "10.0.0.11"'),
    "node-empty": M(CP1, "cp1 = []", "nodes.cp1", "[]", 'write "10.0.0.11"'),
    # missing
    "no-cluster": M(f"[cluster]\n{NAME}\n{VIP}\n", "", "cluster", "", "write [cluster] with name"),
    "no-name": M(NAME, "", "cluster.name", "", "missing; write it"),
    "no-vip": M(VIP, "", "cluster.vip", "", 'write vip = "10.0.0.100"'),
    "empty-vips": M(VIP, "vips = []", "cluster.vips", "[]", "for several"),
    "no-nodes-table": M(
        NODES,
        "", "nodes", "", "write [nodes] with a line for each node",
    ),
    "no-nodes": M(
        NODES.removeprefix("[nodes]\n"),
        "", "nodes", "", "no nodes; write [nodes]",
    ),
    "no-services": M(
        SERVICES, "[services]\n", "services", "", "no services; write"
    ),
    "no-services-table": M(SERVICES, "", "services", "", "missing; write"),
    "no-kind": M(APISERVER, "", "services.apiserver.kind", "", "missing; write it"),
    "tcp-without-port": M(APISERVER, 'kind = "tcp"', "services.apiserver.port", "", "write port"),
    # addresses
    "vip-name": M(VIP, 'vip = "vip.example"', "cluster.vip", '"vip.example"', "write an IP literal"),
    "vip-prefix": M(VIP, 'vip = "10.0.0.100/24"', "cluster.vip", '"10.0.0.100/24"', "without a prefix"),
    "vip-zeros": M(VIP, 'vip = "10.0.0.010"', "cluster.vip", '"10.0.0.010"', "write an IP literal"),
    "vip-zone": M(VIP, 'vip = "fd00::1%eth0"', "cluster.vip", '"fd00::1%eth0"', "unicast address of your"),
    "vip-link-local": M(VIP, 'vip = "fe80::1"', "cluster.vip", '"fe80::1"', "unicast address of your"),
    "vip-mapped": M(VIP, 'vip = "::ffff:10.0.0.100"', "cluster.vip", "::ffff:", "unicast address of your"),
    "vip-multicast": M(VIP, 'vip = "224.0.0.18"', "cluster.vip", "224.0.0.18", "unicast address of your"),
    "vip-broadcast": M(VIP, 'vip = "255.255.255.255"', "cluster.vip", "255.255", "unicast address of your"),
    "vip-loopback": M(VIP, 'vip = "127.0.0.1"', "cluster.vip", '"127.0.0.1"', "unicast address of your"),
    "vip-loopback6": M(VIP, 'vips = ["::1"]', "cluster.vips", '"::1"', "unicast address of your"),
    "vip-this-network": M(VIP, 'vip = "0.0.0.1"', "cluster.vip", '"0.0.0.1"', "unicast address of your"),
    "vip-reserved": M(VIP, 'vip = "240.0.0.1"', "cluster.vip", '"240.0.0.1"', "unicast address of your"),
    "vip-any": M(VIP, 'vip = "0.0.0.0"', "cluster.vip", '"0.0.0.0"', "unicast address of your"),
    "vip-any6": M(VIP, 'vip = "::"', "cluster.vip", '"::"', "unicast address of your"),
    "vip-twice": M(VIP, 'vips = ["10.0.0.1", "10.0.0.1"]', "cluster.vips", '"10.0.0.1"', "keep one"),
    "vip-twice-ipv6": M(VIP, 'vips = ["fd00::1", "fd00:0::1"]', "cluster.vips", '"fd00::1"', "keep one"),
    "vip-and-vips": M(VIP, f'{VIP}\nvips = ["10.0.0.1"]', "cluster.vips", '["10.0.0.1"]', "one of the two"),
    "node-bad": M(CP1, 'cp1 = "10.0.0.256"', "nodes.cp1", '"10.0.0.256"', "write an IP literal"),
    "node-twice": M(CP2, 'cp2 = "10.0.0.11"', "nodes.cp2", '"10.0.0.11"', "each node needs its own"),
    "node-is-vip": M(CP2, 'cp2 = "10.0.0.100"', "nodes.cp2", '"10.0.0.100"', "must belong to no node"),
    "node-family": M(CP2, 'cp2 = "fd00::2"', "nodes.cp2", '"fd00::2"', "add the node's IPv4 address"),
    "node-extra": M(CP2, 'cp2 = ["10.0.0.12", "fd00::2"]', "nodes.cp2", "fd00::2", "add an IPv6 VIP"),
    "node-two": M(CP2, 'cp2 = ["10.0.0.12", "10.0.0.22"]', "nodes.cp2", "10.0.0.22", "one for each family"),
    "node-same": M(CP2, 'cp2 = ["10.0.0.12", "10.0.0.12"]', "nodes.cp2", "10.0.0.12", "one for each family"),
    "vip-family": M(VIP, 'vips = ["10.0.0.100", "fd00::1"]', "nodes.cp1", "10.0.0.11", "IPv6 address, or"),
    "too-many-nodes": M(
        CP1, "\n".join(f'n{index} = "10.1.0.{index}"' for index in range(1, 33)), "nodes", "", "at most 32"
    ),
    # names that stand twice
    "node-name-twice": M(CP2, 'cp1 = "10.0.0.12"', 'cp1 = "10.0.0.12"', "", "a name stands twice, keep one"),
    "node-name-case": M(CP2, 'CP1 = "10.0.0.12"', "nodes.CP1", '"10.0.0.12"', "give each node its own"),
    "node-inline-twice": M("", '[paths]\nx = { cp1 = 1, cp1 = 2 }\n', "cp1 = 1, cp1 = 2", "", "keep one"),
    "no-last-newline": M(ETCD, f'{ETCD}kind = "tcp"', 'kind = "tcp"', "at line", "stands twice, keep one"),
    "service-twice": M("", ETCD, "[services.etcd]", "", "a name stands twice, keep one"),
    "key-twice": M("", 'kind = "tcp"\n', 'kind = "tcp"', "", "a name stands twice, keep one"),
    "service-reserved": M(ETCD, '[services.haproxy]\nkind = "etcd"\n', "services.haproxy", "", "another"),
    # ports
    "port-zero": M("", "port = 0\n", "services.etcd.port", "0", "from 1 to 65535"),
    "port-negative": M("", "port = -1\n", "services.etcd.port", "-1", "from 1 to 65535"),
    "port-high": M("", "port = 65536\n", "services.etcd.port", "65536", "from 1 to 65535"),
    "port-huge": M("", f"port = 0x{'f' * 9000}\n", "services.etcd.port", "0xffff", "from 1 to 65535"),
    "target-port": M("", "target_port = 65536\n", "services.etcd.target_port", "65536", "from 1 to 65535"),
    "port-taken": M("", "port = 6443\n", "services.etcd.port", "6443", "already taken by services.apiserver"),
    "port-of-metrics": M("", "port = 8404\n", "services.etcd.port", "8404", "taken by metrics.address"),
    "listen": M("", 'listen = "vips"\n', "services.etcd.listen", '"vips"', 'did you mean "vip"?'),
    "redirect-port": M("", "redirect_port = 0\n", "services.etcd.redirect_port", "0", "from 1 to 65535"),
    "redirect-itself": M("", "redirect_port = 2379\n", "services.etcd.redirect_port", "2379", "choose another"),
    "redirect-taken": M(
        "", "redirect_port = 16443\n", "services.etcd.redirect_port", "16443", "choose another, or write listen"
    ),
    "redirect-default-taken": M(
        "", "port = 16443\n", "services.apiserver.redirect_port", "16443", "taken by services.etcd.port; choose"
    ),
    "redirect-on-a-server": M(
        "", "redirect_port = 99\ntarget_port = 99\n", "etcd.redirect_port", "99", "etcd.target_port; choose"
    ),
    "redirect-on-a-listed-server": M(
        "", 'backends = ["10.0.0.12:16443"]\n', "apiserver.redirect_port", "16443", "etcd.backends; choose"
    ),
    "redirect-on-peers": M("", "redirect_port = 8406\n", "etcd.redirect_port", "8406", "peers.port; choose"),
    "filter-word": M("", '[failover]\nvrrp_filter = "yes"\n', "failover.vrrp_filter", '"yes"', "true or false"),
    "metrics-of-node": M(
        "", '[metrics]\naddress = "10.0.0.11:9000"\n', "metrics.address", "10.0.0.11:9000", '"127.0.0.1:8404"'
    ),
    "metrics-no-port": M("", '[metrics]\naddress = "127.0.0.1"\n', "metrics.address", "127.0.0.1", ":8404"),
    "metrics-at-vip": M("", '[metrics]\naddress = "10.0.0.100:1"\n', "metrics.address", "10.0.0.100", "write"),
    "metrics-is-a-server": M(
        "", 'backends = ["127.0.0.1:8404"]\n', "services.etcd.backends", "127.0.0.1:8404", "another port there"
    ),
    # backends
    "backends-empty": M("", "backends = []\n", "services.etcd.backends", "[]", 'or write "nodes"'),
    "backends-unknown": M("", 'backends = "node"\n', "services.etcd.backends", '"node"', '"nodes"'),
    "backends-address": M("", 'backends = "10.0.0.1"\n', "services.etcd.backends", "10.0.0.1", "or a list of"),
    "backends-kind": M("", 'backends = "kubernetes"\n', "services.etcd.backends", "kubernetes", "change kind"),
    "backends-file": M("", 'backends = "etcd-env:x"\n', "services.etcd.backends", '"x"', "absolute"),
    "backends-dns": M("", 'backends = "dns-srv:a..b"\n', "services.etcd.backends", "dns-srv:a..b", "such as"),
    "backends-dns-long": M("", f'backends = "dns-srv:{"a" * 64}.b"\n', "etcd.backends", "a", "such as"),
    "backends-vip": M("", 'backends = ["10.0.0.100"]\n', "services.etcd.backends", "10.0.0.100", "behind it"),
    "backends-vip-other": M(
        "", 'backends = ["10.0.0.100:6443"]\n', "services.etcd.backends", "10.0.0.100:6443", "behind it"
    ),
    "backends-twice": M(
        "", 'backends = ["10.0.0.1", "10.0.0.1:2379"]\n', "services.etcd.backends", "10.0.0.1:2379", "keep one"
    ),
    "backends-port": M("", 'backends = ["10.0.0.1:0"]\n', "services.etcd.backends", "10.0.0.1:0", "1 to 65535"),
    "backends-colon": M("", 'backends = ["10.0.0.1:"]\n', "services.etcd.backends", "10.0.0.1:", "1 to 65535"),
    "backends-digits": M("", 'backends = ["10.0.0.1:٣"]\n', "services.etcd.backends", "٣", "1 to 65535"),
    "backends-bracket": M("", 'backends = ["[fd00::1"]\n', "services.etcd.backends", "[fd00::1", "[fd00::11]"),
    "backends-after": M("", 'backends = ["[fd00::1]5"]\n', "services.etcd.backends", "]5", "[fd00::11]"),
    "backends-many": M(
        "", "backends = [" + '"10.0.0.1",' * 10001 + "]\n", "services.etcd.backends", "", "at most 10000"
    ),
    "token-elsewhere": M("", 'token_file = "/t"\n', "services.etcd.token_file", '"/t"', "change backends"),
    # words that are one of several
    "kind": M(APISERVER, 'kind = "apiserver"', "services.apiserver.kind", '"apiserver"', '"kube-apiserver"'),
    "balance": M("", 'balance = "leastcon"\n', "services.etcd.balance", '"leastcon"', '"leastconn"'),
    "balance-line": M("", 'balance = "first if x"\n', "services.etcd.balance", '"first if x"', 'mean "first"?'),
    "profile": M("", '[failover]\nprofile = "quick"\n', "failover.profile", '"quick"', "balanced, fast"),
    "mode": M("", '[health]\nmode = "scripts"\n', "health.mode", '"scripts"', '"script"'),
    # numbers
    "check-nan": M("", "check.interval = nan\n", "services.etcd.check.interval", "nan", "0.01 to 3600"),
    "check-inf": M("", "check.timeout = inf\n", "services.etcd.check.timeout", "inf", "0.01 to 3600"),
    "check-negative": M("", "check.interval = -1\n", "services.etcd.check.interval", "-1", "0.01 to 3600"),
    "check-step": M("", "check.interval = 1.00005\n", "services.etcd.check.interval", "1.00005", "of 0.001"),
    "check-huge": M(
        "", f"check.interval = 1{'0' * 400}\n", "services.etcd.check.interval", "0x", "a smaller number"
    ),
    "check-fall": M("", "check.fall = 0\n", "services.etcd.check.fall", "0", "from 1 to 100"),
    "advert-nan": M("", "[failover]\nadvert_interval = nan\n", "failover.advert_interval", "nan", "40.95"),
    "advert-inf": M("", "[failover]\nadvert_interval = -inf\n", "failover.advert_interval", "-inf", "40.95"),
    "advert-step": M("", "[failover]\nadvert_interval = 0.105\n", "failover.advert_interval", "0.105", "0.01"),
    "adverts": M("", "[failover]\ndown_timer_adverts = 0\n", "failover.down_timer_adverts", "0", "1 to 100"),
    "health-interval": M("", "[health]\ninterval = 61\n", "health.interval", "61", "from 1 to 60"),
    "vrid-zero": M(VIP, f"{VIP}\nvirtual_router_id = 0", "cluster.virtual_router_id", "0", "from 1 to 255"),
    "vrid-high": M(VIP, f"{VIP}\nvirtual_router_id = 256", "cluster.virtual_router_id", "256", "1 to 255"),
    # what could break out of a configuration line
    "name-space": M(NAME, 'name = "a b"', "cluster.name", '"a b"', "use letters, digits"),
    "name-empty": M(NAME, 'name = ""', "cluster.name", '""', "use letters, digits"),
    "name-long": M(NAME, f'name = "{"a" * 64}"', "cluster.name", "aaa", "at most 63 characters"),
    "name-hash": M(NAME, 'name = "a#b"', "cluster.name", '"a#b"', "use letters, digits"),
    "node-quote": M(CP1, "'cp\"1' = \"10.0.0.11\"", 'nodes."cp\\"1"', '"cp\\"1"', "use letters, digits"),
    "node-dollar": M(CP1, '"${HOME}" = "10.0.0.11"', 'nodes."${HOME}"', "${HOME}", "use letters, digits"),
    "node-brace": M(CP1, '"cp1}" = "10.0.0.11"', 'nodes."cp1}"', "cp1}", "use letters, digits"),
    "node-dots": M(CP1, '".." = "10.0.0.11"', 'nodes.".."', '".."', "use letters, digits"),
    "node-slash": M(CP1, '"a/b" = "10.0.0.11"', 'nodes."a/b"', '"a/b"', "use letters, digits"),
    "node-address": M(CP1, '"10.0.0.12" = "10.0.0.11"', 'nodes."10.0.0.12"', '"10.0.0.11"', "such as cp1 ="),
    "node-dash": M(CP1, '-cp1 = "10.0.0.11"', "nodes.-cp1", '"-cp1"', "use letters, digits"),
    "node-unicode": M(CP1, '"cp１" = "10.0.0.11"', 'nodes."cp１"', "cp１", "use letters, digits"),
    "service-upper": M("", '[services.Reg]\nkind = "tcp"\n', "services.Reg", '"Reg"', "lower-case letters"),
    "service-dot": M("", '[services."a.open"]\nkind = "tcp"\n', 'services."a.open"', "a.open", "lower-case"),
    "service-line": M("", '[services."x y"]\nkind = "tcp"\n', 'services."x y"', '"x y"', "lower-case"),
    "interface": M(VIP, f'{VIP}\ninterface = "eth0; x"', "cluster.interface", '"eth0; x"', "at most 15"),
    "interface-long": M(VIP, f'{VIP}\ninterface = "{"e" * 16}"', "cluster.interface", "eeee", "at most 15"),
    "path-space": M("", '[paths]\nstate_dir = "/a b"\n', "paths.state_dir", '"/a b"', "write an absolute path"),
    "path-quote": M("", "tls.ca = '/a\"b'\n", "services.etcd.tls.ca", '"/a\\"b"', "write an absolute path"),
    "path-comma": M(
        "",
        '[paths]\nhaproxy_socket = "/run/x,0.0.0.0:9999"\n',
        "paths.haproxy_socket", "/run/x,0.0.0.0:9999", "write an absolute path",
    ),
    "path-relative": M("", '[templates]\ndirectory = "t"\n', "templates.directory", '"t"', "an absolute path"),
    "path-dots": M("", 'tls.ca = "/etc/../x"\n', "services.etcd.tls.ca", '"/etc/../x"', 'without "//"'),
    "path-slash": M("", '[paths]\nstate_dir = "/x/"\n', "paths.state_dir", '"/x/"', 'no "/" last'),
    "path-root": M("", '[paths]\nstate_dir = "/"\n', "paths.state_dir", '"/"', 'no "/" last'),
    "run-dir-long": M("", f'[paths]\nrun_dir = "/{"x" * 90}"\n', "paths.run_dir", "/xxx", "at most 90"),
    "path-long": M("", f'tls.ca = "{LONG}"\n', "services.etcd.tls.ca", "/xxx", "at most 200"),
    "socket-long": M("", f'[paths]\nhaproxy_socket = "{LONG[:96]}"\n', "haproxy_socket", "/", "at most 95"),
    # files with two purposes
    "path-twice": M(
        "", '[paths]\nhaproxy_cfg = "/x"\nkeepalived_conf = "/x"\n', "paths.keepalived_conf", '"/x"', "its own"
    ),
    "path-default": M(
        "", '[paths]\nhaproxy_cfg = "/run/keepalived.pid"\n', "paths.keepalived_pid", "/run", "its own"
    ),
    "path-below": M(
        "", '[paths]\nhaproxy_cfg = "/run/haproxy"\n', "paths.haproxy_socket", "/admin.sock", "another"
    ),
    "ca-overwritten": M(
        "", 'tls.ca = "/etc/haproxy/haproxy.cfg"\n', "services.etcd.tls.ca", "haproxy.cfg", "give each its own"
    ),
    "cert-overwritten": M(
        "",
        'tls = { cert = "/var/lib/lbha/tls/etcd.pem", key = "/k" }\n',
        "services.etcd.tls.cert", "/var/lib/lbha/tls/etcd.pem", "another directory",
    ),
    "env-overwritten": M(
        "", 'backends = "etcd-env:/etc/haproxy/haproxy.cfg"\n', "services.etcd.backends", "haproxy", "its own"
    ),
    # tls
    "tls-half": M("", 'tls.cert = "/c"\n', "services.etcd.tls.key", "", "come together"),
    "tls-other-half": M("", 'tls.key = "/k"\n', "services.etcd.tls.cert", "", "come together"),
    "tls-empty": M("", "tls = {}\n", "services.etcd.tls", "", "write ca"),
    "tls-tcp": M(APISERVER, 'kind = "tcp"\nport = 1\ntls.ca = "/x"', "apiserver.tls", "", "remove tls"),
    # control characters
    "newline": M(NAME, r'name = "a\nb"', "cluster.name", r"a\nb", "remove it"),
    "nul": M(NAME, r'name = "a\u0000"', "cluster.name", r"a\x00", "remove it"),
    "escape": M(NAME, r'name = "\u001b[31m"', "cluster.name", r"\x1b[31m", "remove it"),
    "bidi": M(CP1, 'cp1 = "10.0.0.11\u202e"', "nodes.cp1", r"\u202e", "remove it"),
    "bidi-key": M(CP1, '"cp1\\u202e" = "10.0.0.11"', r'nodes."cp1\u202e"', "", "remove it"),
    "newline-key": M("", '"a\\nb" = 1\n', r'services.etcd."a\nb"', "", "remove it"),
    "newline-section": M("", '["a\\nb"]\n', r'"a\nb"', "", "remove it"),
    "line-separator": M("", 'tls.ca = "/a\\u2028b"\n', "services.etcd.tls.ca", r"\u2028", "remove it"),
    "in-a-list": M("", 'backends = ["10.0.0.1\\r"]\n', "services.etcd.backends", r"\r", "remove it"),
    # not TOML
    "open-text": M(NAME, 'name = "prod', 'name = "prod', "", "not valid TOML"),
    "open-list": M("", "x = [", "", "", "close what is open there"),
    "no-value": M("", "port =\n", "port =", "", "not valid TOML"),
    "raw-control": M(NAME, 'name = "a\x01"', r"\x01", "", "not valid TOML"),
    "tabs-and-bells": M("", "\x07\n", r"\x07", "", "not valid TOML"),
    "bad-date": M("", "x = 2026-02-30\n", "x = 2026-02-30", "", "correct the line"),
    "digits": M("", f"port = {'9' * 5000}\n", "", "", "correct or remove the value"),
    "nested": M("", f"x = {'[' * 100_000}\n", "", "", "nested too deeply"),
    "dotted": M("", "a." * 200_000 + "a = 1\n", "", "", "more than 128 parts"),
    "dotted-quoted": M("", '"a".\'b\'.' * 50_000 + "c = 1\n", "", "", "more than 128 parts"),
    "dotted-inline": M("", "x = { " + "a . " * 50_000 + "a = 1 }\n", "", "", "more than 128 parts"),
    "deep": M("", "a." * 100 + "a = 1\n", "services.etcd.a.a.a", "", "nested too deeply"),
    "deep-and-dotted": M("", "x = " + ("{ " + "a." * 100 + "a = ") * 100 + "1" + "}" * 100 + "\n",
                         "services.etcd.x.a.a", "", "nested too deeply"),
    "byte-order-mark": M("[cluster]", "\ufeff[cluster]", "", "", "save the file as UTF-8 without one"),
}  # fmt: skip


def one_line(message: str, mistake: Mistake, file: str) -> None:
    assert message.isprintable(), message
    assert len(message) < 600, message
    assert message.startswith(f"{file}: "), message
    for part in (mistake.key, mistake.value, mistake.cure):
        assert part in message, message


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.timeout(10)
def test_a_mistake_is_one_line(smallest: str, mistake: Mistake) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(mistake.text(smallest), "/etc/lbha/lbha.toml")
    one_line(str(caught.value), mistake, "/etc/lbha/lbha.toml")
    assert caught.value.exit_code == 2


def test_the_smallest_file_has_none(smallest: str) -> None:
    assert [node.name for node in parse(smallest).nodes] == ["cp1", "cp2", "cp3"]


def test_lbha_in_a_place_that_no_line_can_name_must_be_told_another(smallest: str) -> None:
    """keepalived takes a script that it cannot run for a healthy node, so no other path is guessed."""
    assert parse(smallest, program="/opt/x/bin/lbha").paths.lbha == "/opt/x/bin/lbha"
    with pytest.raises(ConfigError, match=r'paths\.lbha = "/opt/my apps/lbha": not a path that can stand'):
        parse(smallest, program="/opt/my apps/lbha")
    named = smallest + '[paths]\nlbha = "/usr/local/bin/lbha"\n'
    assert parse(named, program="/opt/my apps/lbha").paths.lbha == "/usr/local/bin/lbha"


@pytest.mark.timeout(20)
def test_a_full_size_file_is_read_in_bounded_time() -> None:
    """One MiB of services, then of VIPs: about a second each."""
    head = '[cluster]\nname = "x"\n{}\n[nodes]\na = "10.0.0.1"\n'
    ports = (*range(10_000, 20_000), *range(30_000, 40_000))  # each + 10,000 is free
    many = "".join(f'[services.s{port}]\nkind = "tcp"\nport = {port}\n' for port in ports)
    assert len(parse(head.format('vip = "10.0.0.100"') + many).services) == 20_000
    vips = ",".join(f'"1.{index >> 16}.{index >> 8 & 255}.{index & 255}"' for index in range(70_000))
    listed = ",".join(f'"10.1.{index >> 8}.{index & 255}"' for index in range(10_000))
    text = head.format(f"vips = [{vips}]") + f'[services.etcd]\nkind = "etcd"\nbackends = [{listed}]\n'
    assert len(parse(text).vips) == 70_000
