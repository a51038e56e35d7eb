"""Every check there is, in the order in which people read them."""

from __future__ import annotations

from lbha.doctor import (
    certificates,
    clients,
    engines,
    files_here,
    firewall,
    kernel,
    kubernetes,
    network,
    peers,
    ports,
    running,
    scripts,
    systemd,
    vrrp,
    watched,
)
from lbha.doctor.context import Context
from lbha.doctor.model import Check

CHECKS: tuple[Check[Context], ...] = (
    Check("node", "this host is a node of lbha.toml, and has its addresses", network.node_in_file),
    Check(
        "interface",
        "the VIP's interface: there, up, with the node's address, in the VIP's network",
        network.interface,
    ),
    Check("vip-here", "a VIP on this host that keepalived did not put there, or not as /32", network.vip_here),
    Check(
        "vip-stranger", "who answers for the VIP on the link (ARP, neighbour discovery)", network.vip_stranger
    ),
    Check("ports", "other programs where haproxy or the agent must listen", ports.ports),
    Check("local-ports", "those ports in the kernel's range for outgoing connections", ports.local_ports),
    Check("haproxy-version", "haproxy is installed and new enough", engines.haproxy_version),
    Check("haproxy-features", "haproxy is built with what its configuration uses", engines.haproxy_features),
    Check(
        "keepalived-version",
        "keepalived is installed, new enough, and not known to be bad",
        engines.keepalived_version,
    ),
    Check("real-time", "a real-time priority that would kill keepalived", engines.real_time),
    Check(
        "running-configuration",
        "haproxy, keepalived and nftables run what lies here",
        running.running_configuration,
    ),
    Check("other-keepalived", "a second keepalived on this host", running.other_keepalived),
    Check("old-workers", "haproxy workers of earlier configurations", engines.old_haproxy_workers),
    Check("track-script", "keepalived can run its track scripts, by its own rules", scripts.track_scripts),
    Check("verdict-watched", "keepalived watches the files of the agent's verdict", watched.verdict_watched),
    Check("agent", "the agent answers, and takes the present lbha.toml", peers.agent),
    Check("peer-channel", "the agents hear one another", peers.peer_channel),
    Check(
        "same-configuration", "every node runs the same lbha.toml, and the same lbha", peers.same_configuration
    ),
    Check("clocks", "the nodes' clocks are less than 1 s apart", peers.clocks),
    Check("vrrp-heard", "adverts of the holder arrive here (protocol 112)", vrrp.vrrp_heard),
    Check("virtual-router-id", "strangers that advertise on this link", vrrp.virtual_router_ids),
    Check("firewall", "rules that drop VRRP, resets, or what conntrack calls INVALID", firewall.firewall),
    Check("conntrack-room", "room in the kernel's table of connections", kernel.conntrack_room),
    Check("arp", "arp_ignore, drop_gratuitous_arp", kernel.arp),
    Check("forwarding", "this host passes on what comes for a VIP that has left", kernel.forwarding),
    Check("reverse-path", "strict rp_filter on a host with several ways out", kernel.reverse_path),
    Check("ipv6", "IPv6 is on where an IPv6 VIP goes", kernel.ipv6),
    Check(
        "certificate-files",
        "certificates and keys: there, readable, belonging together",
        certificates.certificate_files,
    ),
    Check(
        "certificate-expiry",
        "what is left of every certificate, in files and as shown",
        certificates.certificate_expiry,
    ),
    Check("certificate-names", "the backends' certificates name the VIP", certificates.certificate_names),
    Check(
        "certificate-usage",
        "client certificates, and etcd's own, may be used by clients",
        certificates.certificate_usage,
    ),
    Check(
        "certificate-authority", "tls.ca vouches for what the backends show", certificates.certificate_authority
    ),
    Check("readyz", "the apiservers let haproxy's check in", kubernetes.readyz),
    Check("etcd-health", "the etcd members let haproxy's check in", kubernetes.etcd_health),
    Check("shutdown-delay", "--shutdown-delay-duration against haproxy's check", kubernetes.shutdown_delay),
    Check("detection", "haproxy's detection against VRRP's", kubernetes.detection),
    Check("clients", "this node's clients of apiserver and etcd go through the VIP", clients.clients),
    Check(
        "file-modes", "who may change what root acts upon, read keys, or command haproxy", files_here.file_modes
    ),
    Check("disk", "room for the state and the configurations", files_here.disk),
    Check("units", "systemd starts what is needed, and restarts keepalived", systemd.units),
    Check("networkd", "systemd-networkd leaves the VIP alone", systemd.networkd),
    Check("network-manager", "NetworkManager leaves the VIP alone", systemd.network_manager),
)
"""Checks of a node."""
