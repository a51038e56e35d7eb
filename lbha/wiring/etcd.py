"""etcd's own environment files for a static cluster, and how a member joins later. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from lbha.model import Cluster, Endpoint, Kind, Service
from lbha.wiring.targets import Member, members, scheme, service, vip_url

_HEAD = """\
# /etc/default/etcd of {name} (Debian's etcd-server), {when}.
"""

_CERTIFICATES = """\
# Its certificate must name: {names}
# and allow both serverAuth and clientAuth (etcd's JSON gateway asks itself with it).
"""

_TLS = """\
ETCD_TRUSTED_CA_FILE="/etc/etcd/pki/ca.crt"
ETCD_CERT_FILE="/etc/etcd/pki/server.crt"
ETCD_KEY_FILE="/etc/etcd/pki/server.key"
ETCD_CLIENT_CERT_AUTH="true"
ETCD_PEER_TRUSTED_CA_FILE="/etc/etcd/pki/ca.crt"
ETCD_PEER_CERT_FILE="/etc/etcd/pki/server.crt"
ETCD_PEER_KEY_FILE="/etc/etcd/pki/server.key"
ETCD_PEER_CLIENT_CERT_AUTH="true"
"""

_STEPS = """\
# A member joins, one at a time, while all others are healthy. From a node that may use etcdctl:
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={vip}
{tls}etcdctl endpoint health --cluster

# 1. A member that is replaced goes first (its disk is lost, its address is new):
#      etcdctl member list
#      etcdctl member remove ID
# 2. Announce NAME as a learner, which has no vote and so risks no quorum:
{adds}
# 3. On NAME: its file of etcd/existing/ becomes /etc/default/etcd; its ETCD_INITIAL_CLUSTER must list exactly
#    the members of now and NAME. The data directory must be empty:
#      rm -rf /var/lib/etcd/default && systemctl start etcd
# 4. Promote it. This is refused until it has caught up; repeat it then:
#      etcdctl member promote ID
#
# etcd calls a learner healthy although it refuses clients. With backends = "etcd-members" lbha leaves it out
# until it is promoted. Otherwise add it to lbha.toml only after step 4, and make these files from a copy that
# has it already: lbha wiring -c copy.toml etcd --out DIR
"""


def files(cluster: Cluster) -> Mapping[str, str]:
    """etcd/new/NAME.env and etcd/existing/NAME.env for every member, and etcd/add-member.txt. Raises Absent."""
    etcd = service(cluster, Kind.ETCD)
    listed = members(cluster, etcd)
    made: dict[str, str] = {}
    for state, when in (("new", "for the first start of the whole cluster"), ("existing", "to join it later")):
        for each in listed:
            made[f"etcd/{state}/{each.name}.env"] = _environment(cluster, etcd, listed, each, state, when)
    made["etcd/add-member.txt"] = _steps(cluster, etcd, listed)
    return made


def _environment(
    cluster: Cluster, etcd: Service, listed: tuple[Member, ...], own: Member, state: str, when: str
) -> str:
    how = scheme(etcd)
    loopback = Endpoint("::1" if ":" in own.client.address else "127.0.0.1", own.client.port)
    # Never on every address: haproxy has VIP:port.
    listens = (own.client,) if ip_address(own.client.address).is_loopback else (own.client, loopback)
    text = _HEAD.format(name=own.name, when=when)
    count = len(listed)
    if count < 3:
        text += f"# {count} members survive no failure: write at least three into lbha.toml.\n"
    elif count % 2 == 0:
        text += f"# {count} members survive no more failures than {count - 1}: an odd number is better.\n"
    if etcd.tls:
        own_names = (own.client.address, own.name, loopback.address, "localhost")
        text += _CERTIFICATES.format(names=", ".join((*cluster.vips, *own_names)))
    values = {
        "NAME": own.name,
        "DATA_DIR": "/var/lib/etcd/default",
        "LISTEN_CLIENT_URLS": ",".join(f"{how}://{each}" for each in listens),
        "ADVERTISE_CLIENT_URLS": f"{how}://{own.client}",
        "LISTEN_PEER_URLS": f"{how}://{own.peer}",
        "INITIAL_ADVERTISE_PEER_URLS": f"{how}://{own.peer}",
        "INITIAL_CLUSTER": ",".join(f"{each.name}={how}://{each.peer}" for each in listed),
        "INITIAL_CLUSTER_TOKEN": cluster.name,
        "INITIAL_CLUSTER_STATE": state,
    }
    text += "".join(f'ETCD_{key}="{value}"\n' for key, value in values.items())
    return text + (_TLS if etcd.tls else "")


def _steps(cluster: Cluster, etcd: Service, listed: tuple[Member, ...]) -> str:
    tls = ""
    if etcd.tls:
        tls = (
            "export ETCDCTL_CACERT=/etc/etcd/pki/ca.crt ETCDCTL_CERT=/etc/etcd/pki/server.crt "
            "ETCDCTL_KEY=/etc/etcd/pki/server.key\n"
        )
    adds = "\n".join(
        f"#      etcdctl member add {each.name} --learner --peer-urls={scheme(etcd)}://{each.peer}"
        for each in listed
    )
    return _STEPS.format(vip=vip_url(cluster, etcd), tls=tls, adds=adds)
