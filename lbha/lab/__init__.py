"""Whole clusters on one machine: nodes in network namespaces, the real engines, and faults on demand."""
