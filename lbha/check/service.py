"""One look at a service's backend on this node: etcd's /health, the apiserver's /readyz, or a connection.

The same questions that haproxy asks, so that both judge alike: the certificate's chain is verified against
the service's authority, its names are not, and etcd's NOSPACE alarm is no illness. Every step has what is
left of the time that `lbha.check` counts, so no peer can hold it.
"""

from __future__ import annotations

import _socket
import os

from lbha.check.watch import Bad, Misuse, Watch, ip, told

TYPE_CHECKING = False
if TYPE_CHECKING:  # as `typing` has it, without importing it
    import ssl

    from lbha.model import Cluster

_CONFIG = "/etc/lbha/lbha.toml"
_MAX_ANSWER = 64 << 10

_PATHS = {"etcd": "/health?exclude=NOSPACE", "kube-apiserver": "/readyz", "tcp": None}
"""Kind to what is asked with GET. NOSPACE: reads still work, and every member says it at once."""


class Target:
    """A backend and how to ask it. Without `ca` the certificate is not verified."""

    # Not a dataclass or NamedTuple: importing either takes longer than the whole check.
    __slots__ = ("address", "ca", "cert", "key", "kind", "port")

    def __init__(
        self,
        kind: str,
        address: str,
        port: int,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
    ) -> None:
        self.kind, self.address, self.port = kind, address, port
        self.ca, self.cert, self.key = ca, cert, key

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def tls(self) -> bool:
        """The apiserver speaks nothing else; etcd where it was given files."""
        return self.kind == "kube-apiserver" or bool(self.ca or self.cert)


def service(name: str, options: dict[str, str], watch: Watch) -> str:
    """Good when the service's backend on this node is healthy, or it has none here.

    Raises Bad, Misuse, TimeoutError, OSError.
    """
    if "--kind" in options or "--address" in options:
        target = given(options)
    else:
        for option in ("--ca", "--cert", "--key"):
            if option in options:
                raise Misuse(f"{option} goes with --kind and --address")
        found = configured(name, options, watch)
        if found is None:
            return f"no backend of {name} on this node"
        target = found
    return ask(target, watch)


def cluster(options: dict[str, str], watch: Watch) -> Cluster:
    """The cluster file. Raises Misuse for any mistake in it."""
    file = config_file(options)
    watch.start(f"reading {file}")
    from pathlib import Path

    from lbha import config
    from lbha.errors import ConfigError

    try:
        return config.load(Path(file))
    except ConfigError as error:
        raise Misuse(str(error)) from None


def config_file(options: dict[str, str]) -> str:
    """-c FILE, else LBHA_CONFIG, else /etc/lbha/lbha.toml."""
    return options.get("--config") or os.environ.get("LBHA_CONFIG") or _CONFIG


def given(options: dict[str, str]) -> Target:
    """The backend that the command line names. Raises Misuse."""
    kind, endpoint = options.get("--kind"), options.get("--address")
    if kind is None or endpoint is None:
        raise Misuse("--kind and --address come together")
    for option in ("--config", "--node"):
        if option in options:
            raise Misuse(f"{option} is not read beside --address")
    if kind not in _PATHS:
        raise Misuse(f"unknown kind {kind}; use one of: {', '.join(_PATHS)}")
    ca, cert, key = (options.get(option) for option in ("--ca", "--cert", "--key"))
    if kind == "tcp" and (ca or cert or key):
        raise Misuse("kind tcp is checked by a plain connection: it takes no --ca, --cert or --key")
    if (cert is None) != (key is None):
        raise Misuse("--cert and --key come together")
    address, _, port = endpoint.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        raise Misuse(f"{endpoint}: write an IPv6 address as [IP]:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise Misuse(f"{endpoint} is not IP:PORT with a port from 1 to 65535")
    ip(address)
    return Target(kind, address, int(port), ca, cert, key)


def configured(name: str, options: dict[str, str], watch: Watch) -> Target | None:
    """The backend on this node according to lbha.toml; None where the service has none. Raises Misuse.

    A source that has to be asked (etcd's members, DNS …) counts as `lbha apply` last remembered it.
    """
    found = cluster(options, watch)
    from pathlib import Path

    from lbha import host
    from lbha.discovery.endpoints import backends, node_endpoints
    from lbha.discovery.memory import recall
    from lbha.errors import ConfigError

    services = {each.name: each for each in found.services}
    if name not in services:
        raise Misuse(f"no service {name} in {config_file(options)}; use one of: {', '.join(services)}")
    wanted = services[name]
    watch.start("looking for this node in the file")
    try:
        node = host.find_node(found, options.get("--node"))
    except ConfigError as error:
        raise Misuse(str(error)) from None
    endpoints = node_endpoints(found, wanted)
    if not isinstance(wanted.backends, str):
        endpoints = wanted.backends
    elif last_good := recall(Path(found.paths.state_dir) / "discovery", found, wanted):
        endpoints = last_good.endpoints
    for backend in backends(found, wanted, endpoints):
        if backend.endpoint.address in node.addresses:
            watch.note(f"this is {node.name}, {name} is at {backend.endpoint}")
            tls = wanted.tls
            files = (tls.ca, tls.cert, tls.key) if tls else ()
            return Target(wanted.kind.value, backend.endpoint.address, backend.endpoint.port, *files)
    return None


def ask(target: Target, watch: Watch) -> str:
    """The reason why the backend is healthy. Raises Bad, TimeoutError, OSError."""
    context = _trust(target, watch) if target.tls else None
    watch.start(f"connecting to {target}")
    raw = _socket.socket(ip(target.address)[0], _socket.SOCK_STREAM)
    connection: _socket.socket | ssl.SSLSocket = raw
    try:
        # Otherwise the request waits for the ACK of the handshake's end, which the peer delays by 40 ms.
        raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        raw.settimeout(watch.left())
        try:
            raw.connect((target.address, target.port))
        except TimeoutError:
            raise
        except OSError as error:
            raise Bad(f"{target}: {told(error)}") from None
        watch.note("connected")
        path = _PATHS[target.kind]
        if path is None:
            return f"{target} accepts connections"
        if context is None:
            return _get(connection, target, path, watch)
        import socket

        watch.start(f"TLS with {target}")
        # Before the handshake, so that it has a deadline too.
        connection = context.wrap_socket(socket.socket(fileno=raw.detach()), do_handshake_on_connect=False)
        connection.settimeout(watch.left())
        connection.do_handshake()
        watch.note(f"{connection.version()}{', verified' if target.ca else ', not verified'}")
        return _get(connection, target, path, watch)
    finally:
        connection.close()


def _trust(target: Target, watch: Watch) -> ssl.SSLContext:
    """The authority and the client certificate. Raises Bad when a file is missing or damaged."""
    watch.start("loading OpenSSL")
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if target.ca else ssl.CERT_NONE
    try:
        if target.ca:
            watch.start(f"reading {target.ca}")
            context.load_verify_locations(target.ca)
        if target.cert:
            watch.start(f"reading {target.cert} and {target.key}")
            # A password, so that OpenSSL does not ask the terminal for that of an encrypted key.
            context.load_cert_chain(target.cert, target.key, password="none")
    except OSError as error:  # ssl.SSLError is one
        raise Bad(f"{watch.doing}: {told(error)}") from None
    return context


def _get(connection: _socket.socket | ssl.SSLSocket, target: Target, path: str, watch: Watch) -> str:
    """Send the request and read no more than the judgement needs."""
    watch.start(f"asking GET {path} of {target}")
    connection.settimeout(watch.left())
    connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {target}\r\nUser-Agent: lbha-check\r\n\r\n".encode())
    answer = b""
    while True:
        connection.settimeout(watch.left())
        part = connection.recv(4096)
        answer += part
        try:
            verdict = judge(target.kind, answer, ended=not part or len(answer) >= _MAX_ANSWER)
        except Bad as error:
            raise Bad(f"{target} {error}") from None
        if verdict:
            return f"{target} {verdict}"


def judge(kind: str, answer: bytes, *, ended: bool) -> str | None:
    """Why what has been read of an HTTP answer is good; None while it is too early to say. Pure.

    Raises Bad. A judgement falls as soon as it can: a peer that keeps the connection open costs no time.
    """
    if not answer:
        raise Bad("closed the connection without an answer")
    status, line_end, _ = answer.partition(b"\r\n")
    if not b"HTTP/1.".startswith(status[:7]):
        raise Bad(f"speaks no HTTP: {status[:40]!r}")
    if not line_end:
        if ended:
            raise Bad("broke off in the first line of its answer")
        return None
    words = status.decode("ascii", "replace").split(" ")
    code = words[1] if len(words) > 1 else ""
    body = answer.partition(b"\r\n\r\n")[2]
    said = body[:200].decode("utf-8", "replace").strip()
    if code in ("401", "403"):
        raise Bad(f"answers {code}: it wants a client certificate that may ask (--cert, --key)")
    if code != "200":
        raise Bad(f"answers {code or 'nonsense'}{': ' if said else ''}{said}")
    if kind != "etcd":
        return "answers 200"
    # The same words that haproxy looks for: '"health": *"?true'.
    _, found, value = body.partition(b'"health":')
    value = value.lstrip(b" ").removeprefix(b'"')
    if found and value.startswith(b"true"):
        return "is healthy"
    if ended or (found and len(value) >= 5):
        raise Bad(f"is not healthy: {said}")
    return None
