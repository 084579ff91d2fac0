"""Certificates made on the spot: an authority of its own, and what it vouches for on this machine."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .ports import HOST

VALID = timedelta(days=30)
NEVER_MIND = timedelta(hours=1)  # between clocks


ADMIN = "admin"
SERVER = "server"  # the name in the servers' certificate


@dataclass(frozen=True)
class Keys:
    """Passwords (letters and digits) by user, ADMIN among them; who vouches for the servers, and what these show."""

    users: Mapping[str, str] = field(repr=False)
    authority: Path
    certificate: Path


@dataclass(frozen=True)
class Authority:
    """Who vouches for servers; `path` holds its certificate (PEM), for those who are to trust it."""

    path: Path
    _key: EllipticCurvePrivateKey
    _certificate: x509.Certificate

    @classmethod
    def made(cls, folder: Path, name: str = "authority", valid: timedelta = VALID) -> Self:
        """Make one, its certificate in `folder`."""
        key, subject = generate_private_key(SECP256R1()), _named(name)
        certificate = (
            _builder(subject, subject, key, valid)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        path = folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return cls(path, key, certificate)

    def issue(self, name: str, valid: timedelta = VALID, hosts: Iterable[str] = ()) -> Path:
        """Return a file with a key and a certificate for HOST and `hosts`, valid for so long from now (or, below 0,
        no more)."""
        key = generate_private_key(SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(HOST)), *map(x509.DNSName, hosts)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_named(name), self._certificate.subject, key, valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self.path.with_name(f"{name}.pem")
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
            + self._certificate.public_bytes(Encoding.PEM)
        )
        return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, valid: timedelta
) -> x509.CertificateBuilder:
    until = datetime.now(UTC) + valid
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(until, datetime.now(UTC)) - NEVER_MIND)
        .not_valid_after(until)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
