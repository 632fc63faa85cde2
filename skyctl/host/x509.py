"""X.509 certificates and keys, as PEM texts: the one module that needs the library for them, which is slow to load."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=397)  # what clients accept at most
BACKDATED = timedelta(days=1)  # for hosts whose clock is behind


# What the library raises, beside ValueError, of what it cannot read.
UNREADABLE = (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)


class ForeignKey(Exception):
    """The key of the authority is not of the kind that is made here."""


class ForeignNames(Exception):
    """A request is for names that were not allowed; its text names them."""


class Contents(NamedTuple):
    """The contents of a certificate; its fingerprint is SHA-256, in hexadecimal with colons."""

    subject: str
    names: Sequence[str]
    starts_at: datetime
    ends_at: datetime
    fingerprint: str


def read(pem: bytes) -> Contents:
    """Return what a certificate says. Raises ValueError where it is none."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = _names(certificate.extensions)
    except UNREADABLE as error:
        raise ValueError(str(error)) from error
    return Contents(
        certificate.subject.rfc4514_string(),
        names,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def make_authority(common_name: str, now: datetime) -> tuple[str, str]:
    """Make an authority, which signs itself; return its certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    certificate = (
        _builder(name, name, key.public_key(), now, now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _certificate_pem(certificate), _key_pem(key)


def make_request(names: Sequence[str]) -> tuple[str, str]:
    """Make a key, and the request for a server's certificate for it and for these names; return the request and the
    key."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name("skyctl serve"))
        .add_extension(_alternative(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.PEM).decode(), _key_pem(key)


def sign_request(
    request: bytes, allowed: Sequence[str], now: datetime, ends_at: datetime, authority: bytes, authority_key: bytes
) -> str:
    """Sign a server's certificate for a request's key and names, and take nothing else from the request.

    Raises ForeignNames where it is for another name than those allowed, ForeignKey where the authority's key is of
    another kind, ValueError where one of the three cannot be read.
    """
    try:
        asked = x509.load_pem_x509_csr(request)
        key, is_its_own, names = asked.public_key(), asked.is_signature_valid, _names(asked.extensions)
    except UNREADABLE as error:
        raise ValueError(str(error)) from error
    if not (isinstance(key, ec.EllipticCurvePublicKey) and is_its_own):
        raise ValueError("the request is not signed by its own key, or that is of another kind")
    foreign = set(names) - set(allowed)
    if foreign or not names:
        raise ForeignNames(", ".join(sorted(foreign)) or "no name at all")
    return _certificate_pem(_sign_server(key, names, now, ends_at, authority, authority_key))


def fits(certificate: bytes, key: bytes, authority: bytes) -> bool:
    """Tell whether a certificate is of this key, and signed by this authority."""
    try:
        signed = x509.load_pem_x509_certificate(certificate)
        signed.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        return signed.public_key() == load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, InvalidSignature, *UNREADABLE):
        return False


def make_server(
    names: Sequence[str], now: datetime, ends_at: datetime, authority: bytes, authority_key: bytes
) -> tuple[str, str]:
    """Make a server's certificate for host names and addresses, signed by the authority; return it and its key.

    Raises ForeignKey where the authority's key is of another kind, ValueError where one of the two cannot be read.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign_server(key.public_key(), names, now, ends_at, authority, authority_key)
    return _certificate_pem(certificate), _key_pem(key)


def _sign_server(
    key: ec.EllipticCurvePublicKey,
    names: Sequence[str],
    now: datetime,
    ends_at: datetime,
    authority: bytes,
    authority_key: bytes,
) -> x509.Certificate:
    issuer = x509.load_pem_x509_certificate(authority)
    signer = load_pem_private_key(authority_key, password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ForeignKey
    return (
        _builder(_name("skyctl serve"), issuer.subject, key, now, ends_at)
        .add_extension(_alternative(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(of_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends_at: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends_at)
    )


def _usage(*, of_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not of_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=of_authority,
        crl_sign=of_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _names(extensions: x509.Extensions) -> list[str]:
    try:
        alternative = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = alternative.get_values_for_type(x509.IPAddress)
    return [*alternative.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _alternative(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(name) for name in names])


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(address)


def _certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
