"""The checks of `doctor` and `db check` as they are printed. No I/O."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.domain.cluster import Check, CheckState
from skyctl.domain.text import printable

CHECK_COLORS = {CheckState.OK: "green", CheckState.WARNING: "yellow", CheckState.FAILED: "red"}


def check_table(checks: Sequence[Check]) -> list[Any]:
    """What the doctor found, one line a check; under what is not well, what to do about it, once where several need the
    same."""
    table = formats.plain_table("", "CHECK", "FOUND")
    table.columns[-1].no_wrap = False
    for check, following in zip(checks, [*checks[1:], None], strict=True):
        found = Text(printable(check.found))
        if check.remedy and not (following and following.remedy == check.remedy):
            found.append(f"\n→ {printable(check.remedy)}", style="bold")
        table.add_row(Text(check.state.value, style=CHECK_COLORS[check.state]), check.name, found)
    states = [check.state for check in checks]
    failed, warnings = states.count(CheckState.FAILED), states.count(CheckState.WARNING)
    summary = f"{failed} failed, {warnings} warning{'s' * (warnings != 1)}" if failed or warnings else "All is well."
    return [table, Text(f"\n{summary}", style="bold")]


def schema_table(version: int | None, expected: int, missing: Sequence[str]) -> list[Any]:
    """What a database has of the schema."""
    table = formats.plain_table("SCHEMA", "", heading=False)
    table.add_row("Applied version", "none" if version is None else str(version))
    table.add_row("Expected version", str(expected))
    table.add_row("Missing", ", ".join(missing) or "nothing")
    return [table]
