"""The certificates of `tls show` as they are printed. No I/O."""

from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents.http import Document


def certificate_details(document: Document) -> list[Any]:
    """The certificates by which hosts know this manager."""
    shown: list[Any] = []
    for certificate in document["certificates"]:
        rows = [
            (certificate["role"].capitalize(), certificate["subject"]),
            *([("Names", ", ".join(certificate["names"]))] if certificate["names"] else []),
            ("Good until", formats.day(certificate["endsAt"])),
            ("SHA-256", certificate["fingerprint"]),
            ("File", certificate["path"]),
        ]
        shown += [*([Text()] if shown else []), formats.details(rows)]
    return shown
