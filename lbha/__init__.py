"""lbha: one address for etcd and the kube-apiserver that survives failures.

This module imports nothing: the track script starts every second on every node.
"""

__version__ = "0.1.0"
