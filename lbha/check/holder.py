"""Does this host hold the VIP?"""

from __future__ import annotations

import _socket

from lbha.check.watch import Bad, Watch, ip, told


def holder(address: str, watch: Watch) -> str:
    """Good when `address` is one of this host's. Raises Bad, and Misuse for what is no IP address.

    The kernel is asked which source it would use to reach the address: the address itself exactly when it is
    local, whatever `ip_nonlocal_bind` says. Connecting a UDP socket sends nothing.
    """
    family, packed = ip(address)
    watch.start(f"asking the kernel for the way to {address}")
    probe = _socket.socket(family, _socket.SOCK_DGRAM)
    try:
        probe.connect((address, 9))
        source = str(probe.getsockname()[0])
    except OSError as error:
        raise Bad(f"{address} is not on this host ({told(error)})") from None
    finally:
        probe.close()
    watch.note(f"from {source}")
    if _socket.inet_pton(family, source) != packed:
        raise Bad(f"{address} is not on this host")
    return f"this host holds {address}"
