"""The certificates of `tls show` as they are printed. No I/O."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.host.certificates import Certificate


def certificate_details(found: Sequence[Certificate]) -> list[Any]:
    """The certificates by which hosts know this manager."""
    shown: list[Any] = []
    for each in found:
        rows = [
            (each.role.capitalize(), each.subject),
            *([("Names", ", ".join(each.names))] if each.names else []),
            ("Good until", f"{each.ends_at:%Y-%m-%d}"),
            ("SHA-256", each.fingerprint),
            ("File", str(each.path)),
        ]
        shown += [*([Text()] if shown else []), formats.details(rows)]
    return shown
