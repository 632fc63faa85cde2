"""The authority of a manager as the manager itself sends it: to be pinned once its fingerprint was compared."""

import base64
import hashlib
import hmac
import re
import ssl
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from skyctl.domain.errors import ManagerUnavailable, ValidationError
from skyctl.host.api_address import Address
from skyctl.host.api_client import CONNECT_SECONDS, unavailable

PATH = "/ca.pem"
MOST_BYTES = 64 * 1024
# One, and nothing beside it: of two the fingerprint would be that of the first, and both would be believed.
ONE_CERTIFICATE = re.compile(
    r"\s*-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*", re.ASCII
)
_SHA256 = re.compile(r"[0-9A-F]{64}")


def fetch(url: str) -> str:
    """Return the PEM certificate of the authority that a manager calls its own. It is anybody's word: who asks has
    verified nothing. Raises ManagerUnavailable, also where it has none."""
    parts, address = urlsplit(url), Address(url)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS, context=anybody)
    try:
        connection.request("GET", parts.path.rstrip("/") + PATH, headers={"User-Agent": "skyctl"})
        response = connection.getresponse()
        content = response.read(MOST_BYTES)
    except (OSError, HTTPException) as error:
        raise unavailable(address, error) from error
    finally:
        connection.close()
    found = ONE_CERTIFICATE.fullmatch(content.decode("ascii", "replace")) if response.status == 200 else None
    try:
        certificate = base64.b64decode("".join(found[1].split()), validate=True) if found else b""
    except ValueError:
        certificate = b""
    if not certificate:
        raise ManagerUnavailable(
            f"{address.shown}: its certificate is not trusted here, and it has no authority of its own to show",
            "check the address; or have this system trust the authority of its certificate",
        )
    return ssl.DER_cert_to_PEM_cert(certificate)


def fingerprint(pem: str) -> str:
    """Return the SHA-256 of a certificate, in hexadecimal with colons, as `skyctl tls show` has it."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()


def checked_fingerprint(source: str, said: str) -> str:
    """Return a fingerprint as people may write it, as `fingerprint` does. Raises ValidationError."""
    digits = re.sub(r"[:\s]", "", said).upper()
    if not _SHA256.fullmatch(digits):
        raise ValidationError(f"{source}: {said!r} is no SHA-256", "give the 64 digits that `skyctl tls show` shows")
    return bytes.fromhex(digits).hex(":").upper()


def is_of(pem: str, said: str) -> bool:
    """Tell whether a certificate has this fingerprint."""
    return hmac.compare_digest(fingerprint(pem), said)
