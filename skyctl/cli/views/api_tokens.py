"""Tokens of the API as they are printed. No I/O."""

from typing import Any

from rich.text import Text

from skyctl.cli.views import formats
from skyctl.documents.http import Document
from skyctl.domain.text import printable

COLORS = {"good": "green", "expired": "yellow", "revoked": "red"}


def token_table(document: Document) -> list[Any]:
    """Tokens, each with its end and its last use."""
    tokens, now = document["tokens"], document["readAt"]
    if not tokens:
        return [Text("No tokens.")]
    table = formats.plain_table("NAME", "ROLE", "STATE", "EXPIRES", "MADE", "BY", "LAST USED")
    for token in tokens:
        state, expires = token["state"], token["expiresAt"]
        ends = "-" if state != "good" else formats.ahead(expires, now) if expires else "never"
        used = formats.ago(token["lastUsedAt"], now) if token["lastUsedAt"] else "never"
        where = f" from {token['lastUsedFrom']}" if token["lastUsedFrom"] else ""
        made = formats.ago(token["madeAt"], now)
        name, by = printable(token["name"]), printable(token["madeBy"])
        standing = Text(state, style=COLORS.get(state, ""))
        table.add_row(name, token["role"], standing, ends, made, by, printable(used + where))
    return [table]
