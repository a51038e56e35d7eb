"""kubeadm's ClusterConfiguration. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lbha.model import Cluster, Kind, Listen
from lbha.wiring.targets import Absent, at_vip, etcd_or_none, members, names_of, scheme, service, vip_url

_HEAD = """\
# The first master:  kubeadm init --upload-certs --config kubeadm.yaml
# Other masters:     kubeadm join {endpoint} --control-plane …   (workers without --control-plane)
#
# Every field is the same in v1beta4 (kubeadm 1.31 and later): where kubeadm no longer reads v1beta3, change it
# to v1beta4 below, or: kubeadm config migrate --old-config kubeadm.yaml
# A cluster that exists: kubectl -n kube-system edit configmap kubeadm-config, then on each master:
#   rm /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key
#   kubeadm init phase certs apiserver --config kubeadm.yaml
"""

_LISTEN = """\
#
# kubeadm's apiserver listens on 0.0.0.0:{port}, and haproxy cannot listen on the VIP beside it. Before kubeadm,
# set listen = "redirect" in [services.{name}] of lbha.toml and run lbha apply.
"""


def files(cluster: Cluster) -> Mapping[str, str]:
    """kubeadm.yaml. Raises Absent without an apiserver service."""
    api = service(cluster, Kind.KUBE_APISERVER)
    text = _HEAD.format(endpoint=at_vip(cluster, api))
    if api.target_port == api.port and api.listen is not Listen.REDIRECT:
        text += _LISTEN.format(port=api.port, name=api.name)
    if api.target_port != 6443:
        text += (
            "apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\nlocalAPIEndpoint:\n"
            f"  bindPort: {api.target_port} # services.{api.name}.target_port\n---\n"
        )
    text += (
        "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n"
        f"controlPlaneEndpoint: {_quoted(str(at_vip(cluster, api)))}\n"
        f"apiServer:\n  certSANs:\n{_list(names_of(cluster), 4)}"
    )
    return {"kubeadm.yaml": text + _etcd(cluster)}


def _etcd(cluster: Cluster) -> str:
    """External, at the VIP; the alternatives as comments."""
    etcd = etcd_or_none(cluster)
    if etcd is None:
        return ""
    try:
        listed = [f"{scheme(etcd)}://{each.client}" for each in members(cluster, etcd)]
        others = "".join(f"\n#     - {_quoted(each)}" for each in listed)
        instead = f"# or its members (lbha wiring apiserver says which is better when):{others}\n"
    except Absent:
        instead = "# or the addresses of its members (lbha wiring apiserver says which is better when)\n"
    text = (
        f"# An etcd of its own (services.{etcd.name}): its VIP,\n{instead}"
        f"etcd:\n  external:\n    endpoints:\n      - {_quoted(vip_url(cluster, etcd))}\n"
    )
    if etcd.tls:
        text += (
            "    caFile: /etc/kubernetes/pki/etcd/ca.crt\n"
            "    certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt\n"
            "    keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key\n"
        )
    sans = "".join(f"\n#       - {_quoted(each)}" for each in cluster.vips)
    return text + (
        "# kubeadm's own etcd (stacked) instead: its certificate must name the VIP, for who asks it there\n"
        f"# etcd:\n#   local:\n#     serverCertSANs:{sans}\n"
    )


def _list(values: Iterable[str], indent: int) -> str:
    return "".join(f"{' ' * indent}- {_quoted(each)}\n" for each in values)


def _quoted(text: str) -> str:
    """A YAML string: what lbha.toml accepts as a name or an address holds no quote and no backslash."""
    return f'"{text}"'
