"""`lbha pki`: an authority and one certificate a node, for the channel between agents.

ECDSA P-256 throughout. A key is written before its certificate, each of them whole or not at all, so a run that
was killed leaves at worst a key without a certificate, and the next run issues one for it. No key is ever
written over, but for `renew`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbha import files
from lbha.config.document import shown
from lbha.errors import ConfigError, LbhaError
from lbha.files import PRIVATE, Access
from lbha.model import Cluster, Node

CA_DAYS = 3650
NODE_DAYS = 730
SOON = timedelta(days=30)
"""A certificate with less than this left is worth a word."""

_PUBLIC = Access(0o644)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Made:
    """One file: newly written or kept as it was, and what an operator should know of it."""

    path: Path
    new: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def init(cluster: Cluster, out: Path, days: int = NODE_DAYS, renew: Collection[str] = ()) -> list[Made]:
    """Mint what is missing below `out`, and anew the nodes in `renew`; `days` is a node certificate's life.

    Raises ConfigError for an unknown node, LbhaError in one line for all else.
    """
    names = [node.name for node in cluster.nodes]
    for name in renew:
        if name not in names:
            raise ConfigError(f"--renew {shown(name)} is not in [nodes]; use one of: {', '.join(names)}")
    try:
        files.private_directory(out)
        made, authority = _authority(cluster, out)
        for node in cluster.nodes:
            made += _node(cluster, node, authority, out / node.name, days, node.name in renew)
    except OSError as error:
        raise LbhaError(f"{error.filename or out}: {error.strerror or error}") from None
    return made


def _authority(cluster: Cluster, out: Path) -> tuple[list[Made], _Authority]:
    cert_file, key_file = out / "ca.crt", out / "ca.key"
    old = files.read(cert_file)
    if old is not None and not key_file.exists():
        raise LbhaError(
            f"{key_file} is missing beside ca.crt; bring it back, or name another directory by --out"
        )
    key_made, key = _key(key_file)
    if old is not None:
        certificate = _parse(cert_file, old)
        _refuse_authority(cert_file, certificate, key)
        return [Made(cert_file, False, _left(certificate)), key_made], _Authority(certificate, key)
    name = _name("lbha CA", cluster.name)
    certificate = (
        _builder(name, name, key.public_key(), datetime.now(UTC) + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    files.write(cert_file, certificate.public_bytes(_PEM), _PUBLIC)
    return [Made(cert_file, True), key_made], _Authority(certificate, key)


def _refuse_authority(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    if certificate.public_key() != key.public_key():
        raise LbhaError(f"{path} and ca.key do not belong together; bring the right one back")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise LbhaError(f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; start in another --out")


def _node(
    cluster: Cluster, node: Node, authority: _Authority, directory: Path, days: int, renew: bool
) -> list[Made]:
    files.private_directory(directory)
    cert_file, key_file, ca_file = (directory / name for name in ("node.crt", "node.key", "ca.crt"))
    made = [_copy(ca_file, authority.certificate.public_bytes(_PEM))]
    if renew:
        cert_file.unlink(missing_ok=True)  # first: it would stand beside a key that is not its own
    old = files.read(cert_file)
    if old is not None and not key_file.exists():
        raise LbhaError(f"{key_file} is missing beside node.crt; bring it back, or use --renew {node.name}")
    key_made, key = _key(key_file, anew=renew)
    if old is not None:
        problem = _problem(_parse(cert_file, old), node, authority, key)
        note = f"{problem}: use --renew {node.name}" if problem else ""
        return [*made, Made(cert_file, False, note), key_made]
    certificate = _issue(cluster, node, authority, key, days)
    files.write(cert_file, certificate.public_bytes(_PEM), _PUBLIC)
    return [*made, Made(cert_file, True), key_made]


def _issue(
    cluster: Cluster, node: Node, authority: _Authority, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.Certificate:
    end = min(datetime.now(UTC) + timedelta(days=days), authority.certificate.not_valid_after_utc)
    issuer_key = authority.key.public_key()
    # Both usages: each agent asks and is asked.
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _builder(_name(node.name, cluster.name), authority.certificate.subject, key.public_key(), end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(node)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _problem(
    certificate: x509.Certificate, node: Node, authority: _Authority, key: ec.EllipticCurvePrivateKey
) -> str:
    """What is wrong with a certificate that stands there already; empty when nothing is."""
    if certificate.public_key() != key.public_key():
        return "does not belong to its key"
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # what it raises depends on the kind of the stranger's key
        return "is not from this CA"
    missing = [each.value for each in _names(node) if each not in names]
    if missing:
        return f"does not name {', '.join(map(str, missing))}"
    return _left(certificate)


def _left(certificate: x509.Certificate) -> str:
    """A word when it has expired or soon will."""
    end = certificate.not_valid_after_utc
    left = end - datetime.now(UTC)
    if left > SOON:
        return ""
    return f"{'expires' if left > timedelta() else 'expired'} on {end:%Y-%m-%d}"


def _key(path: Path, *, anew: bool = False) -> tuple[Made, ec.EllipticCurvePrivateKey]:
    """The key in the file; a new one only where there is no file, or `anew`."""
    old = None if anew else files.read(path)
    if old is None:
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8
        files.write(path, key.private_bytes(_PEM, form, serialization.NoEncryption()), PRIVATE)
        return Made(path, True), key
    try:
        found = serialization.load_pem_private_key(old, None)
    except (ValueError, TypeError):
        raise LbhaError(f"{path} is not a key in PEM without a password; bring the right one back") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise LbhaError(f"{path} is not an elliptic curve key, so lbha did not make it; name another --out")
    return Made(path, False), found


def _copy(path: Path, data: bytes) -> Made:
    if files.read(path) == data:
        return Made(path, False)
    files.write(path, data, _PUBLIC)
    return Made(path, True)


def _parse(path: Path, data: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise LbhaError(f"{path} is not a certificate in PEM; remove it, and it is minted again") from None


def _names(node: Node) -> list[x509.GeneralName]:
    addresses = [x509.IPAddress(ip_address(address)) for address in node.addresses]
    return [*addresses, x509.DNSName(node.name)]


def _name(common: str, cluster: str) -> x509.Name:
    attributes = [(NameOID.ORGANIZATION_NAME, cluster), (NameOID.COMMON_NAME, common)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))  # clocks differ
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
