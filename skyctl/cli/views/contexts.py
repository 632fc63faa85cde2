"""Contexts as they are printed. No I/O."""

from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents.http import Document
from skyctl.domain.text import printable


def context_table(document: Document) -> list[Any]:
    """Contexts, the current one marked."""
    if not document["contexts"]:
        return [Text("No contexts.")]
    table = formats.plain_table("CURRENT", "NAME", "URL", "LOGGED IN", "AUTHORITY")
    for context in document["contexts"]:
        authority = "pinned" if context["authority"] else "system"
        mark = "*" if context["current"] else ""
        table.add_row(mark, printable(context["name"]), printable(context["url"]), _yes(context["loggedIn"]), authority)
    return [table]


def context_details(context: Document) -> list[Any]:
    """All that is known of one."""
    table = formats.plain_table("", "", heading=False)
    table.add_row("Name", printable(context["name"]))
    table.add_row("URL", printable(context["url"]))
    table.add_row("Current", _yes(context["current"]))
    table.add_row("Logged in", _yes(context["loggedIn"]))
    table.add_row("Authority", f"SHA-256 {context['authority']}" if context["authority"] else "those of the system")
    return [table]


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
