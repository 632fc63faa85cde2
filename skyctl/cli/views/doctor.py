"""The checks of `doctor` and `db check` as they are printed. No I/O."""

from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents.http import Document
from skyctl.domain.text import printable

CHECK_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def check_table(document: Document) -> list[Any]:
    """The findings of the doctor, one line a check; under each that is not well its remedy, once where several need the
    same."""
    checks = document["checks"]
    table = formats.plain_table("", "CHECK", "FOUND", bars=(2,))
    for check, following in zip(checks, [*checks[1:], None], strict=True):
        finding = Text(printable(check["found"]))
        if check["remedy"] and not (following and following["remedy"] == check["remedy"]):
            finding.append(f"\n→ {printable(check['remedy'])}", style="bold")
        table.add_row(Text(check["state"], style=CHECK_COLORS[check["state"]]), check["name"], finding)
    states = [check["state"] for check in checks]
    failed, warnings = states.count("failed"), states.count("warning")
    summary = f"{failed} failed, {warnings} warning{'s' * (warnings != 1)}" if failed or warnings else "All is well."
    return [table, Text(f"\n{summary}", style="bold")]


def schema_table(document: Document) -> list[Any]:
    """The versions and missing parts of a database's schema."""
    version = document["version"]
    table = formats.plain_table("SCHEMA", "", heading=False)
    table.add_row("Applied version", "none" if version is None else str(version))
    table.add_row("Expected version", str(document["expectedVersion"]))
    table.add_row("Missing", ", ".join(document["missing"]) or "nothing")
    return [table]
