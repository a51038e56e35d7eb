"""Does this host hold the VIP?"""

from __future__ import annotations

import _socket

from lbha.check.watch import Bad, Watch, ip, told


def holder(address: str, watch: Watch) -> str:
    """Good when `address` is one of this host's. Raises Bad, and Misuse for what is no IP address."""
    watch.start(f"asking the kernel for the way to {address}")
    try:
        source = source_for(address)
    except OSError as error:
        raise Bad(f"{address} is not on this host ({told(error)})") from None
    watch.note(f"from {source}")
    if not _same(source, address):
        raise Bad(f"{address} is not on this host")
    return f"this host holds {address}"


def holds(address: str) -> bool:
    """The same without words (10 µs)."""
    try:
        return _same(source_for(address), address)
    except OSError:
        return False


def source_for(address: str) -> str:
    """The source that the kernel would use to reach `address`: itself exactly when it is local, whatever
    `ip_nonlocal_bind` says. Connecting a UDP socket sends nothing. Raises OSError, and Misuse."""
    family, _ = ip(address)
    probe = _socket.socket(family, _socket.SOCK_DGRAM)
    try:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])
    finally:
        probe.close()


def _same(one: str, other: str) -> bool:
    return ip(one)[1] == ip(other)[1]
