"""flannel's way to etcd. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lbha.model import Cluster, Kind
from lbha.wiring.apiserver import member_flag
from lbha.wiring.targets import service, vip_url

_TEXT = """\
# flanneld with its subnets in etcd (without --kube-subnet-mgr), on every node. As variables of its unit:
# FLANNELD_ETCD_ENDPOINTS and so on. With --kube-subnet-mgr it asks the apiserver, and needs nothing of this.
--etcd-endpoints={vip}
# or the members (the trade-off is that of `lbha wiring apiserver`):
# {members}
"""

_TLS = """\
--etcd-cafile=/etc/flannel/pki/ca.crt
--etcd-certfile=/etc/flannel/pki/client.crt
--etcd-keyfile=/etc/flannel/pki/client.key
"""


def files(cluster: Cluster) -> Mapping[str, str]:
    """flannel.flags. Raises Absent without an etcd service."""
    etcd = service(cluster, Kind.ETCD)
    text = _TEXT.format(vip=vip_url(cluster, etcd), members=member_flag(cluster, "--etcd-endpoints"))
    return {"flannel.flags": text + (_TLS if etcd.tls else "")}
