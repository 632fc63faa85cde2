"""skyctl services logs"""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents, domain
from skyctl.cli import desk, way
from skyctl.cli.arguments import OrganizationOption
from skyctl.cli.context import info
from skyctl.cli.running import SwarmServiceArgument
from skyctl.domain.errors import ValidationError
from skyctl.domain.text import printable
from skyctl.operations import admin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skyctl.documents.http import Document
    from skyctl.domain.logs import LogOptions
    from skyctl.operations.shared.context import Context


def logs(
    ctx: typer.Context,
    service: SwarmServiceArgument,
    organization: OrganizationOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, metavar="N", help="The last lines of each container.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="No older than that, such as 10m.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Say when each was written.")] = False,
) -> None:
    """Show what a service's containers write: any of the swarm.

    Each line begins with the node and the container's task. A manager elsewhere gives at most 1000 lines at once, and
    has no --follow.
    """

    age = documents.times.duration("--since", since) if since is not None else None
    start = None if age is None else int(time.time() - age.total_seconds())
    if follow:
        way.prefer_database(ctx)  # since only the engine itself hands out what comes
    with desk.open_desk(ctx) as at:
        if isinstance(at, desk.Local):
            lines = _here(at.context, service, organization, domain.logs.LogOptions(tail, start, follow))
        elif follow:
            raise ValidationError("--follow takes the manager's host", "ask again and again, such as with --since 1m")
        else:
            lines = _there(ctx, at, service, {"organization": organization, "since": start}, tail)
        try:
            for line in lines:
                sys.stdout.write(_text(line, timestamps=timestamps))
                sys.stdout.flush()
        except KeyboardInterrupt:
            pass  # that is how it is ended


def _here(context: "Context", service: str, organization: str | None, wish: "LogOptions") -> "Iterator[Document]":
    """Give the lines as they come, however many."""
    where = admin.services.organization(context, organization) if organization is not None else None
    known = admin.swarm_services.find(context, service, where)
    for line, hostname in admin.swarm_services.logs(context, known, wish):
        yield documents.swarm.log_line_document(line, hostname)


def _there(
    ctx: typer.Context, at: desk.Desk, service: str, query: desk.Query, tail: int | None
) -> "Iterator[Document]":
    """Give as many of the last lines as one answer has."""
    most = desk.MOST_AT_ONCE if tail is None else min(tail, desk.MOST_AT_ONCE)
    where = "GET /api/swarm/services/{reference}/logs"
    answer = at.ask(where, {**query, "tail": most}, reference=service)["data"]
    yield from answer["lines"]
    if answer["isCut"] or (most != tail and len(answer["lines"]) >= most):
        info(
            ctx, "note: there are more lines than one answer has: give --tail or --since, or look on the manager's host"
        )


def _text(line: "Document", *, timestamps: bool) -> str:
    when = f"{line['at']} " if timestamps else ""
    return printable(f"{when}{line['node']} {line['task'][:8]} | {line['text']}") + "\n"
