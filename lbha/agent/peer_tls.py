"""TLS between agents: both sides show a certificate of the one CA, and each node's names its address.

Only Python's ssl: it verifies here what it will verify on the wire, by a handshake of this node with itself in
memory. The cryptography library would add 10 MiB to the agent (measured).
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from lbha.discovery.endpoints import one_line
from lbha.errors import LbhaError
from lbha.model import Cluster, Node, Peers

ONE_NODE = "one node only"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contexts:
    """What this node shows and demands, as a server and as a client. `expires` in seconds since the epoch."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    expires: float


def contexts(peers: Peers, address: str) -> Contexts:
    """Contexts from the files of [peers], proven for `address`, the node's own.

    Blocking, a few ms. Raises LbhaError that names the file and what is wrong with it.
    """
    for path in (peers.ca, peers.cert, peers.key):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise LbhaError(f"{path}: {error.strerror}") from None
    server = _context(ssl.PROTOCOL_TLS_SERVER, peers)
    server.num_tickets = 0  # connections stay open for hours: nothing to resume
    client = _context(ssl.PROTOCOL_TLS_CLIENT, peers)
    try:
        shown = _handshake(server, client, address)
    except ssl.SSLError as error:
        raise LbhaError(f"{peers.cert}: {problem(error)} (by {peers.ca}, for {address})") from None
    return Contexts(server, client, ssl.cert_time_to_seconds(str(shown["notAfter"])))


class Certificates:
    """The contexts that the files on disk give. A bad replacement is told in the log, and leaves the last good
    ones in force."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.contexts: Contexts | None = None
        self._problem: str | None = ONE_NODE if len(cluster.nodes) == 1 else None
        self._peers = cluster.peers
        self._address = node.address
        self._seen: object = None
        self.look()

    @property
    def off(self) -> str | None:
        """Why agents cannot hear each other; None when they can."""
        return self._problem if self.contexts is None else None

    def look(self) -> None:
        """Read the files again if they changed or expired, or while something is wrong with them."""
        if self._problem == ONE_NODE:
            return
        stamp = tuple(_stamp(path) for path in (self._peers.ca, self._peers.cert, self._peers.key))
        expired = self.contexts is not None and self.contexts.expires <= time.time()
        if stamp == self._seen and not self._problem and not expired:
            return
        self._seen = stamp
        told = self._problem
        try:
            self.contexts = contexts(self._peers, self._address)
            self._problem = None
        except LbhaError as error:
            self._problem = str(error)
        if self._problem and self._problem != told:
            _log.warning(
                "[peers] %s%s", self._problem, "; the earlier ones stay in force" if self.contexts else ""
            )


def problem(error: BaseException) -> str:
    """A TLS failure in an operator's words, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return one_line(error.verify_message).rstrip(".")
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.lower().replace("_", " ")
        refused, alert, why = words.partition(" alert ")
        return f"the other side refuses this node's certificate: {why}" if alert and refused else words
    return one_line(str(error) or type(error).__name__)


def _context(protocol: int, peers: Peers) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(peers.ca)
    except (OSError, ValueError) as error:
        raise LbhaError(f"{peers.ca}: {problem(error)}") from None
    try:
        # A password that is wrong for certain: OpenSSL would ask for one on the terminal.
        context.load_cert_chain(peers.cert, peers.key, password=lambda: "\0")
    except (OSError, ValueError) as error:
        raise LbhaError(f"{peers.cert} with {peers.key}: {problem(error)}") from None
    return context


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, address: str) -> dict[str, object]:
    """This node to itself, in memory; the certificate that it shows. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up, server_hostname=address)
    asked = server.wrap_bio(up, down, server_side=True)
    for side in (asking, asked, asking, asked):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return dict(asking.getpeercert() or {})


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
