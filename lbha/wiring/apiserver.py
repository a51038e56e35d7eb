"""The kube-apiserver's way to etcd: the VIP, or the members, and which is better when. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lbha.model import Cluster, Kind
from lbha.wiring.targets import Absent, members, scheme, service, vip_url

_TEXT = """\
# kube-apiserver on every master (kubeadm: etcd.external.endpoints of `lbha wiring kubeadm`). One of the two:
#
# The VIP: the better one where members come, go or are replaced, and where they are to stay hidden.
#  + a changed member list restarts no apiserver: only lbha has to know it
#  + haproxy's checks keep out a member that is frozen or has no quorum
#  - one hop more, and when the VIP moves, every connection to etcd is made anew at once (watches resume)
--etcd-servers={vip}
#
# The members: the better one for an etcd that rarely changes.
#  + no hop, a move of the VIP touches nothing; the apiserver's client spreads its requests, and leaves out a
#    member whose connection breaks
#  - a member that accepts and does not answer costs timeouts; every change of the list restarts every apiserver
# {members}
"""

_TLS = """\
#
# Either way, with a client certificate that etcd's authority has signed:
--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt
--etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
--etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key
"""


def files(cluster: Cluster) -> Mapping[str, str]:
    """apiserver.flags. Raises Absent without an etcd service."""
    etcd = service(cluster, Kind.ETCD)
    text = _TEXT.format(vip=vip_url(cluster, etcd), members=member_flag(cluster, "--etcd-servers"))
    return {"apiserver.flags": text + (_TLS if etcd.tls else "")}


def member_flag(cluster: Cluster, flag: str) -> str:
    """`FLAG=URL,URL,…` of the members, as far as lbha.toml names them."""
    etcd = service(cluster, Kind.ETCD)
    try:
        listed = ",".join(f"{scheme(etcd)}://{each.client}" for each in members(cluster, etcd))
    except Absent:
        return f"{flag}=…  (the members that {etcd.backends} names)"
    return f"{flag}={listed}"
