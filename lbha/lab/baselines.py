"""Two published recipes with their own values, so that a drill compares with what operators run today.

- `kubeadm`: kubernetes/kubeadm, docs/ha-considerations.md, the text "successfully used with keepalived
  2.0.20 and 2.2.4, haproxy 2.4 and 2.8".
- `openshift`: openshift/machine-config-operator, templates/master/00-master/on-prem/files:
  keepalived-keepalived.yaml, keepalived-script.yaml, keepalived-script-both.yaml, haproxy-haproxy.yaml
  (`inter 5s fall 3 rise 1`, `fall 3` for both scripts). Its nftables redirect of VIP:6443 is left out with
  the check for it: clients dial haproxy's own port.

What is ours is marked "lab:" in the text: the admin socket, the log to stdout, an etcd frontend of the
recipe's own shape for the drill's writes, no `daemon` (as under systemd's -Ws), script security where
keepalived 2.2.7 would only warn, and the local apiserver at the node's address, because it does not listen on
localhost here.
"""

from __future__ import annotations

from string import Template

from lbha.errors import LabError
from lbha.lab.spec import RECIPE_PORTS, LabNode, LabSpec

_KUBEADM_KEEPALIVED = """\
! Configuration File for keepalived
global_defs {
    router_id LVS_DEVEL
    ! lab: the next two
    script_user root
    enable_script_security
}
vrrp_script check_apiserver {
  script "$directory/check_apiserver.sh"
  interval 3
  weight -2
  fall 10
  rise 2
}

vrrp_instance VI_1 {
    state $state
    interface eth0
    virtual_router_id 51
    priority $priority
    authentication {
        auth_type PASS
        auth_pass 42
    }
    virtual_ipaddress {
        $vip
    }
    track_script {
        check_apiserver
    }
}
"""

_KUBEADM_SCRIPT = """\
#!/bin/sh

errorExit() {
    echo "*** $$*" 1>&2
    exit 1
}

curl -sfk --max-time 2 https://localhost:$port/healthz -o /dev/null || errorExit "Error GET https://localhost:$port/healthz"
"""

_KUBEADM_HAPROXY = """\
global
    log stdout format raw local0
    # lab: the admin socket
    stats socket $directory/admin.sock mode 600 level admin

defaults
    mode                    http
    log                     global
    option                  httplog
    option                  dontlognull
    option http-server-close
    option forwardfor       except 127.0.0.0/8
    option                  redispatch
    retries                 1
    timeout http-request    10s
    timeout queue           20s
    timeout connect         5s
    timeout client          35s
    timeout server          35s
    timeout http-keep-alive 10s
    timeout check           10s

frontend apiserver
    bind *:$port
    mode tcp
    option tcplog
    default_backend apiserverbackend

backend apiserverbackend
    option httpchk

    http-check connect ssl
    http-check send meth GET uri /healthz
    http-check expect status 200

    mode tcp
    balance     roundrobin

$apiservers

# lab: etcd, of the same shape with a TCP check
frontend etcd
    bind *:$etcd_port
    mode tcp
    option tcplog
    default_backend etcdbackend

backend etcdbackend
    mode tcp
    balance     roundrobin

$etcds
"""

_OPENSHIFT_KEEPALIVED = """\
global_defs {
    enable_script_security
    script_user root
    max_auto_priority -1
    vrrp_garp_master_refresh 60
}

vrrp_script chk_ocp_lb {
    script "/usr/bin/timeout 1.9 $directory/chk_ocp_script.sh"
    interval 2
    weight 20
    rise 3
    fall 3
}

vrrp_script chk_ocp_both {
    script "/usr/bin/timeout 1.9 $directory/chk_ocp_script_both.sh"
    interval 2
    weight 5
    rise 3
    fall 3
}

vrrp_instance lab_API {
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority 40
    advert_int 1
    unicast_src_ip $address
    unicast_peer {
$peers
    }
    authentication {
        auth_type PASS
        auth_pass lab_api_
    }
    virtual_ipaddress {
        $vip/32
    }
    track_script {
        chk_ocp_lb
        chk_ocp_both
    }
}
"""

_OPENSHIFT_SCRIPT = """\
#!/bin/bash
/usr/bin/curl -o /dev/null -kLfs http://localhost:9444/haproxy_ready
"""

_OPENSHIFT_SCRIPT_BOTH = """\
#!/bin/bash
# lab: the apiserver at the node's address
/usr/bin/curl -o /dev/null -kLfs http://localhost:9444/haproxy_ready || /usr/bin/curl -kLfs https://$address:6443/readyz
"""

_OPENSHIFT_HAPROXY = """\
global
  stats socket $directory/admin.sock mode 600 level admin expose-fd listeners
defaults
  maxconn 20000
  mode    tcp
  # lab: to stdout
  log     stdout format raw local0 notice alert
  log-format "%ci:%cp -> %fi:%fp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq"
  option  dontlognull
  retries 3
  timeout http-request 30s
  timeout queue        1m
  timeout connect      10s
  timeout client       86400s
  timeout server       86400s
  timeout tunnel       86400s
frontend  main
  bind :::$port v4v6
  default_backend masters
listen health_check_http_url
  bind :::9444 v4v6
  mode http
  monitor-uri /haproxy_ready
  option dontlognull
backend masters
   option  httpchk GET /readyz HTTP/1.0
   balance roundrobin
$apiservers
# lab: etcd, of the same shape with a TCP check
frontend  etcd
  bind :::$etcd_port v4v6
  default_backend etcds
backend etcds
   balance roundrobin
$etcds
"""


def files(spec: LabSpec, node: LabNode) -> dict[str, tuple[str, int]]:
    """The recipe's files for that node: name below the node's directory to (text, mode).

    LabError when the lab's setup is not a recipe.
    """
    if spec.setup == "kubeadm":
        return _kubeadm(spec, node)
    if spec.setup == "openshift":
        return _openshift(spec, node)
    raise LabError(f"setup {spec.setup!r} is no published recipe; those are {', '.join(RECIPE_PORTS)}")


def _kubeadm(spec: LabSpec, node: LabNode) -> dict[str, tuple[str, int]]:
    first = node == spec.nodes[0]
    values = _values(spec, node) | {
        "state": "MASTER" if first else "BACKUP",
        "priority": "101" if first else "100",
        "apiservers": _servers(spec, "    server {n.name} {n.address}:6443 check verify none"),
        "etcds": _servers(spec, "    server {n.name} {n.address}:2379 check"),
    }
    return {
        "haproxy.cfg": (Template(_KUBEADM_HAPROXY).substitute(values), 0o644),
        "keepalived.conf": (Template(_KUBEADM_KEEPALIVED).substitute(values), 0o644),
        "check_apiserver.sh": (Template(_KUBEADM_SCRIPT).substitute(values), 0o755),
    }


def _openshift(spec: LabSpec, node: LabNode) -> dict[str, tuple[str, int]]:
    check = "inter 5s fall 3 rise 1"
    apiserver = "   server {n.name} {n.address}:6443 weight 1 verify none check check-ssl " + check
    values = _values(spec, node) | {
        "address": node.address,
        "peers": "\n".join(f"        {other.address}" for other in spec.nodes if other != node),
        "apiservers": _servers(spec, apiserver),
        "etcds": _servers(spec, "   server {n.name} {n.address}:2379 weight 1 check " + check),
    }
    return {
        "haproxy.cfg": (Template(_OPENSHIFT_HAPROXY).substitute(values), 0o644),
        "keepalived.conf": (Template(_OPENSHIFT_KEEPALIVED).substitute(values), 0o644),
        "chk_ocp_script.sh": (Template(_OPENSHIFT_SCRIPT).substitute(values), 0o755),
        "chk_ocp_script_both.sh": (Template(_OPENSHIFT_SCRIPT_BOTH).substitute(values), 0o755),
    }


def _values(spec: LabSpec, node: LabNode) -> dict[str, str]:
    return {
        "directory": str(node.directory),
        "vip": spec.vip,
        "port": str(spec.apiserver_port),
        "etcd_port": str(spec.etcd_port),
    }


def _servers(spec: LabSpec, line: str) -> str:
    return "\n".join(line.format(n=node) for node in spec.nodes)
