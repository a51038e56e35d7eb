"""What lbha itself may read of the apiserver, as RBAC. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from lbha.model import Cluster, Kind
from lbha.wiring.targets import service

_HEAD = """\
# What lbha reads through services.{name}.tls or token_file:  kubectl apply -f rbac.yaml
# Its user is the CN of the certificate. One for two years, made on a kubeadm master:
#   cd /etc/lbha/pki
#   openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lbha \\
#     -keyout apiserver.key -out apiserver.csr
#   openssl x509 -req -days 730 -in apiserver.csr -out apiserver.crt \\
#     -CA /etc/kubernetes/pki/ca.crt -CAkey /etc/kubernetes/pki/ca.key
"""

_ROLE = """\
---
# {why}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{ name: lbha, namespace: {namespace} }}
rules:
  - apiGroups: ["{group}"]
    resources: ["{resource}"]
    resourceNames: [{names}]
    verbs: ["get"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{ name: lbha, namespace: {namespace} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: lbha }}
subjects:
  - {{ apiGroup: rbac.authorization.k8s.io, kind: User, name: lbha }}
"""


def files(cluster: Cluster) -> Mapping[str, str]:
    """rbac.yaml. Raises Absent without an apiserver service."""
    api = service(cluster, Kind.KUBE_APISERVER)
    text = _HEAD.format(name=api.name) + _ROLE.format(
        why="`lbha status`: which controller-manager and which scheduler is active.",
        namespace="kube-system",
        group="coordination.k8s.io",
        resource="leases",
        names='"kube-controller-manager", "kube-scheduler"',
    )
    if api.backends == "kubernetes":
        text += _ROLE.format(
            why='backends = "kubernetes": the apiservers.',
            namespace="default",
            group="",
            resource="endpoints",
            names='"kubernetes"',
        )
    return {"rbac.yaml": text}
