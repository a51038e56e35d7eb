"""The lab's certificates: one authority, one server certificate a node, one client certificate.

ECDSA P-256, because making RSA keys would take most of `lab up`. Server certificates carry the clientAuth
usage too: without it etcd's JSON gateway answers 503 "connection closed" (measured with 3.4.23).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbha.lab.spec import LabNode, LabSpec

_LIFE = timedelta(days=365)


def server_cert(node: LabNode) -> Path:
    """The node's certificate, for etcd, its peers and the apiserver."""
    return node.directory / "server.crt"


def server_key(node: LabNode) -> Path:
    """The key of `server_cert`."""
    return node.directory / "server.key"


def write(spec: LabSpec) -> None:
    """Make the authority and every certificate of the lab."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"lbha lab {spec.name}", None)
    ca = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(spec.ca, ca.public_bytes(serialization.Encoding.PEM), 0o644)
    client = _issue(ca, key, _name("lbha-lab-client", "system:masters"), [], spec.client_key)
    _write(spec.client_cert, client, 0o644)
    for node in spec.nodes:
        addresses = ("127.0.0.1", "::1", node.address, node.address6, spec.vip)
        names: list[x509.GeneralName] = [x509.IPAddress(ip_address(address)) for address in addresses]
        names += [x509.DNSName(node.name), x509.DNSName("localhost")]
        cert = _issue(ca, key, _name(node.name, None), names, server_key(node))
        _write(server_cert(node), cert, 0o644)


def _issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    names: list[x509.GeneralName],
    key_file: Path,
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if names else [])]
    builder = (
        _builder(subject, ca.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    _write(key_file, pem, 0o600)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )


def _name(common: str, organization: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
