"""A private certificate authority for one server, and that server's certificate: made once, renewed in time.

People install the authority's certificate on their machines once; the server's own certificate changes under it when
its names change or its end comes near.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keepflow import errors
from keepflow.tools.files import read_private, write_atomic

_AUTHORITY_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=730)
_RENEW_BEFORE = timedelta(days=60)
_SKEW = timedelta(hours=1)  #: clocks of clients may be behind
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(?!.*\.[0-9]+$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Where the files lie (PEM), and until when the server's certificate is valid."""

    authority: Path
    certificate: Path
    key: Path
    valid_until: datetime


def ensure(directory: Path, name: str, hosts: Sequence[str], now: datetime) -> ServerCertificate:
    """Make sure `directory` holds `NAME-ca.crt`, `NAME-ca.key`, `NAME.crt` and `NAME.key` for these hosts.

    What is there and good is kept. Raises UsageError for a name that is none, Unavailable `key-missing` when the
    authority's key is gone, Refused when the authority itself is about to end.
    """
    wanted = [_general_name(host) for host in dict.fromkeys(hosts)]
    authority, authority_key = _ensure_authority(directory, name, now)
    path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
    found = _still_good(path, key_path, authority, wanted, now)
    if found is None:
        key = ec.generate_private_key(ec.SECP256R1())
        found = _sign_server(authority, authority_key, key.public_key(), wanted, now)
        write_atomic(key_path, _key_pem(key), 0o600)
        write_atomic(path, found.public_bytes(serialization.Encoding.PEM))
    return ServerCertificate(directory / f"{name}-ca.crt", path, key_path, found.not_valid_after_utc)


def _ensure_authority(directory: Path, name: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path, key_path = directory / f"{name}-ca.crt", directory / f"{name}-ca.key"
    if not path.exists():
        if not key_path.exists():
            write_atomic(key_path, _key_pem(ec.generate_private_key(ec.SECP256R1())), 0o600, replace=False)
        key = _load_key(key_path)
        write_atomic(path, _sign_authority(name, key, now).public_bytes(serialization.Encoding.PEM))
    authority, key = _load_certificate(path), _load_key(key_path)
    if authority is None or authority.public_key() != key.public_key():
        raise errors.UsageError(
            f"{path} does not belong to {key_path}; put back the pair, or remove both", code="bad-key"
        )
    if authority.not_valid_after_utc - now < _RENEW_BEFORE:
        raise errors.Refused(
            f"{path} is valid only until {authority.not_valid_after_utc:%Y-%m-%d}; remove it and {key_path.name} for a "
            "new one, and install that on every machine that uses this server",
            code="authority-ends",
        )
    return authority, key


def _still_good(
    path: Path, key_path: Path, authority: x509.Certificate, wanted: list[x509.GeneralName], now: datetime
) -> x509.Certificate | None:
    """Return the certificate on disk when nothing about it has to change."""
    found = _load_certificate(path)
    if found is None or not key_path.exists() or found.not_valid_after_utc - now < _RENEW_BEFORE:
        return None
    try:
        found.verify_directly_issued_by(authority)
        names = list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return None
    return found if names == wanted and found.public_key() == _load_key(key_path).public_key() else None


def _sign_authority(name: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # A subject of its own, so that two authorities on one machine are never taken for one another.
    subject = _subject(f"keepflow {name} CA {os.urandom(4).hex()}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    public: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    now: datetime,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject("keepflow server"))
        .issuer_name(authority.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + _SERVER_LIFE, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if _HOST_NAME.fullmatch(host) is None:
            raise errors.UsageError(f"not a host name or address for a certificate: {host[:80]!r}") from None
        return x509.DNSName(host.lower())


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise errors.UsageError(
            f"{path}: not a private key of keepflow; put back the copy, or remove it", code="bad-key"
        )
    return key


def _load_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
