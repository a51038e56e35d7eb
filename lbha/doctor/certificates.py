"""Certificates: those in files, and those that the backends show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from lbha.doctor.context import Context
from lbha.doctor.fold import folded
from lbha.doctor.model import DoesNotApply, Finding, NotChecked, Severity
from lbha.doctor.served import Served
from lbha.model import Cluster, Kind
from lbha.wiring.gather import resolve
from lbha.wiring.verdict import Resolve, unnamed

SOON, VERY_SOON = timedelta(days=30), timedelta(days=7)
"""A certificate with less than this left: a warning, an error."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What counts of one. `where`: file, or the server that showed it; `client`, `server`: its usages."""

    where: str
    ends: datetime
    names: frozenset[str]
    client: bool
    server: bool


def parse(where: str, certificate: x509.Certificate) -> Certificate:
    """An X.509 certificate's. Without an extended key usage it is good for anything (RFC 5280, 4.2.1.12)."""
    usages: set[x509.ObjectIdentifier] | None = None
    names: set[str] = set()
    for extension in certificate.extensions:
        if extension.oid == ExtensionOID.EXTENDED_KEY_USAGE:
            usages = set(extension.value)
        elif extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            names = {str(name.value) for name in extension.value}
    anything = usages is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages
    allowed = usages or set()
    return Certificate(
        where,
        certificate.not_valid_after_utc,
        frozenset(names),
        anything or ExtendedKeyUsageOID.CLIENT_AUTH in allowed,
        anything or ExtendedKeyUsageOID.SERVER_AUTH in allowed,
    )


def certificate_files(context: Context) -> Iterator[Finding]:
    """Every file that lbha.toml names: it is there, it is PEM, and keys belong to their certificates."""
    pairs = _pairs(context.cluster)
    if not pairs:
        raise DoesNotApply("lbha.toml names no certificate that exists")
    for key, path, key_path in pairs:
        yield from _judge_pair(key, path, key_path)


def _judge_pair(key: str, path: str, key_path: str | None) -> Iterator[Finding]:
    try:
        certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
        own = load_pem_private_key(Path(key_path).read_bytes(), None).public_key() if key_path else None
    except PermissionError as error:
        raise NotChecked(f"{error.filename}: only root may read it") from None
    except OSError as error:
        yield Finding(
            "certificate-files", Severity.ERROR, f"{key}: {error.filename}: {error.strerror}", "bring it back"
        )
        return
    except (ValueError, TypeError) as error:
        cure = "write PEM, the key without a password"
        yield Finding("certificate-files", Severity.ERROR, f"{key} = {path}: {error}", cure)
        return
    if own is not None and own != certificates[0].public_key():
        yield Finding(
            "certificate-files",
            Severity.ERROR,
            f"{key}: {path} and {key_path} do not belong together: every check over TLS fails",
            "put back the pair that was issued together",
        )


def certificate_expiry(context: Context) -> Iterator[Finding]:
    """Of the files, and of what the backends show."""
    files = [found for key, path, _ in _pairs(context.cluster) for found in _read(key, path)]
    shown = shown_certificates(context.served)
    if not files and not shown:
        raise DoesNotApply("no certificate is in use")
    yield from judge_expiry([*files, *shown], datetime.now(UTC))


def judge_expiry(certificates: Iterable[Certificate], now: datetime) -> Iterator[Finding]:
    """By what is left of each."""
    return folded((each.where, finding) for each in certificates for finding in _expiry(each, now))


def _expiry(each: Certificate, now: datetime) -> Iterator[Finding]:
    left = each.ends - now
    if left <= SOON:
        days = f"expires on {each.ends:%Y-%m-%d} ({left.days} days left)"
        yield Finding(
            "certificate-expiry",
            Severity.ERROR if left <= VERY_SOON else Severity.WARNING,
            f"the certificate {days if left > timedelta() else f'expired on {each.ends:%Y-%m-%d}'}",
            "renew it: kubeadm certs renew all; lbha pki init --renew NODE; or your own authority",
        )


def certificate_names(context: Context) -> Iterator[Finding]:
    """Whether those whom clients reach at the VIP name it."""
    shown = shown_certificates(context.served)
    if not shown:
        raise _nobody(context.served)
    yield from judge_names(shown, context.cluster.vips, resolve)


def judge_names(shown: Iterable[Certificate], vips: Sequence[str], resolve: Resolve) -> Iterator[Finding]:
    """`shown`: what the backends show. A host name that leads to the VIP does as well: clients use it then."""
    return folded((each.where, finding) for each in shown for finding in _names(each, vips, resolve))


def _names(each: Certificate, vips: Sequence[str], resolve: Resolve) -> Iterator[Finding]:
    if missing := unnamed(each.names, vips, resolve):
        yield Finding(
            "certificate-names",
            Severity.ERROR,
            f"the certificate does not name {', '.join(missing)}, nor a host name that leads there: clients "
            "that come by the VIP refuse it",
            f"issue it anew with IP SAN {', '.join(missing)} (kubeadm's apiserver: certSANs, then remove "
            "apiserver.crt and apiserver.key and run kubeadm init phase certs apiserver)",
        )


def certificate_usage(context: Context) -> Iterator[Finding]:
    """Client certificates of the checks, and those with which etcd's gateway asks etcd."""
    clients = [
        found
        for key, path, key_path in _pairs(context.cluster)
        if key_path and key.startswith("[services.")
        for found in _read(key, path)[:1]
    ]
    gateways = shown_certificates(each for each in context.served if each.kind is Kind.ETCD)
    if not clients and not gateways:
        raise DoesNotApply("no client certificate and no etcd over TLS")
    yield from judge_usage(clients, gateways)


def judge_usage(clients: Iterable[Certificate], gateways: Iterable[Certificate]) -> Iterator[Finding]:
    """`clients`: of lbha.toml; `gateways`: what etcd members show."""
    client = Finding(
        "certificate-usage",
        Severity.ERROR,
        "may not be used by a client (extendedKeyUsage without clientAuth): the checked servers refuse it, "
        "and haproxy takes all of them for down",
        "name a certificate with clientAuth: kubeadm has apiserver-etcd-client.crt and "
        "apiserver-kubelet-client.crt",
    )
    gateway = Finding(
        "certificate-usage",
        Severity.WARNING,
        "the certificate has no clientAuth usage: etcd's JSON gateway, which asks the member with it, answers "
        "503, so neither the quorum nor a member list can be seen there",
        "issue it anew with serverAuth and clientAuth, as kubeadm does",
    )
    yield from folded((each.where, client) for each in clients if not each.client)
    yield from folded((each.where, gateway) for each in gateways if not each.client)


def certificate_authority(context: Context) -> Iterator[Finding]:
    """Whether `ca` of each service vouches for what its backends show, as haproxy verifies it."""
    checked = {service.name for service in context.cluster.services if service.tls and service.tls.ca}
    looked_at = [each for each in context.served if each.service in checked]
    if not checked:
        raise DoesNotApply("no service has tls.ca: the checks verify nothing")
    if all(each.certificate is None for each in looked_at):
        raise _nobody(looked_at)
    yield from folded(
        (
            f"{each.service} at {each.endpoint}",
            Finding(
                "certificate-authority",
                Severity.ERROR,
                f"[services.{each.service}.tls] ca does not vouch for it: {each.distrusted}; haproxy takes it "
                "for down",
                "name the authority that issued it: openssl s_client -connect ADDRESS:PORT -showcerts",
            ),
        )
        for each in looked_at
        if each.distrusted
    )


def shown_certificates(served: Iterable[Served]) -> list[Certificate]:
    """What the backends show."""
    return [
        parse(f"{each.service} at {each.endpoint}", x509.load_der_x509_certificate(each.certificate))
        for each in served
        if each.certificate
    ]


def _nobody(served: Sequence[Served]) -> Exception:
    if not served:
        return DoesNotApply("no service is checked over TLS")
    first = served[0]
    return NotChecked(f"no backend shows a certificate; {first.endpoint}: {first.problem}")


def _pairs(cluster: Cluster) -> list[tuple[str, str, str | None]]:
    """(key of lbha.toml, certificate, its key or None), without files of [peers] that are not there at all."""
    found: list[tuple[str, str, str | None]] = []
    for service in cluster.services:
        tls = service.tls
        if tls and tls.ca:
            found.append((f"[services.{service.name}.tls] ca", tls.ca, None))
        if tls and tls.cert:
            found.append((f"[services.{service.name}.tls] cert", tls.cert, tls.key))
    peers = cluster.peers
    if any(Path(path).exists() for path in (peers.ca, peers.cert, peers.key)):
        found += [("[peers] ca", peers.ca, None), ("[peers] cert", peers.cert, peers.key)]
    return found


def _read(key: str, path: str) -> list[Certificate]:
    """What is in a file; nothing when it cannot be read, which is the matter of `certificate-files`."""
    try:
        certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    return [parse(f"{path} ({key})", each) for each in certificates]
