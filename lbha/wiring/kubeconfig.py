"""`server:` of every kubeconfig: kubelet, kube-proxy, controller-manager, scheduler, kubectl. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lbha.model import Cluster, Kind
from lbha.wiring.targets import service, vip_url

_SCRIPT = """\
#!/bin/sh
# Points the kubeconfigs of this node at {url}:  sh set-server.sh [NAME …]
# On a kubeadm master name only admin: kubeadm keeps controller-manager and scheduler (since 1.19) and kubelet
# (since 1.33) at the node's own apiserver, for upgrades, and `lbha wiring --check` accepts that.
set -eu
for name in ${{*:-kubelet controller-manager scheduler kube-proxy admin}}; do
    file=/etc/kubernetes/$name.conf
    [ -f "$file" ] || continue
    # Each file has its own name for the cluster ("kubernetes", "default-cluster"); another would be ignored.
    cluster=$(kubectl config view --kubeconfig="$file" --minify -o 'jsonpath={{.clusters[0].name}}')
    kubectl config set-cluster "$cluster" --kubeconfig="$file" --server={url}
done
# Then: systemctl restart kubelet; for a static pod move its manifest out of /etc/kubernetes/manifests for 20 s.
"""

_CLUSTER = """\
# The cluster of any kubeconfig; users and contexts stay as they are.
apiVersion: v1
kind: Config
clusters:
  - name: kubernetes
    cluster:
      certificate-authority: /etc/kubernetes/pki/ca.crt
      server: {url}
"""

_PROXY = """\
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: {url}
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
"""
"""What kubeadm writes there, but for the server: kube-proxy runs in a pod of its own service account."""

_PATCH = """\
# kube-proxy of kubeadm, once for the whole cluster:
#   kubectl -n kube-system patch configmap kube-proxy --type merge --patch-file kube-proxy-patch.yaml
#   kubectl -n kube-system rollout restart daemonset kube-proxy
data:
  kubeconfig.conf: |
{kubeconfig}"""


def files(cluster: Cluster) -> Mapping[str, str]:
    """set-server.sh, cluster.conf and kube-proxy-patch.yaml. Raises Absent without an apiserver service."""
    url = vip_url(cluster, service(cluster, Kind.KUBE_APISERVER))
    in_yaml = json.dumps(url)  # a plain scalar may not hold the brackets of IPv6 everywhere
    proxy = "".join(f"    {line}\n" for line in _PROXY.format(url=in_yaml).splitlines())
    return {
        "kubeconfig/set-server.sh": _SCRIPT.format(url=f"'{url}'"),
        "kubeconfig/cluster.conf": _CLUSTER.format(url=in_yaml),
        "kubeconfig/kube-proxy-patch.yaml": _PATCH.format(kubeconfig=proxy),
    }
