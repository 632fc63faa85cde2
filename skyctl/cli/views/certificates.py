"""The certificates of `tls show` as they are printed. No I/O."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.host.certificates import Certificate


def certificate_details(certificates: Sequence[Certificate]) -> list[Any]:
    """The certificates by which hosts know this manager."""
    shown: list[Any] = []
    for certificate in certificates:
        rows = [
            (certificate.role.capitalize(), certificate.subject),
            *([("Names", ", ".join(certificate.names))] if certificate.names else []),
            ("Good until", f"{certificate.ends_at:%Y-%m-%d}"),
            ("SHA-256", certificate.fingerprint),
            ("File", str(certificate.path)),
        ]
        shown += [*([Text()] if shown else []), formats.details(rows)]
    return shown
