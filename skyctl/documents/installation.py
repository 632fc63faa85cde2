"""The JSON documents of what an installation works with: its certificates, and the doctor's checks."""

from collections.abc import Sequence

from skyctl.documents.http import Document, moment
from skyctl.domain.checks import Check
from skyctl.host.certificates import Certificate


def certificates_document(certificates: Sequence[Certificate]) -> Document:
    """The authority's certificate and the server's."""
    return {"certificates": [_certificate(certificate) for certificate in certificates]}


def _certificate(certificate: Certificate) -> Document:
    return {
        "role": certificate.role,
        "subject": certificate.subject,
        "names": list(certificate.names),
        "startsAt": moment(certificate.starts_at),
        "endsAt": moment(certificate.ends_at),
        "fingerprint": certificate.fingerprint,
        "path": str(certificate.path),
    }


def checkup_document(checks: Sequence[Check], *, healthy: bool) -> Document:
    """The doctor's checks."""
    return {
        "healthy": healthy,
        "checks": [
            {"name": check.name, "state": check.state.value, "found": check.found, "remedy": check.remedy}
            for check in checks
        ],
    }
