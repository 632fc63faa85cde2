"""skyctl events"""

from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import follow as log
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, emit, emit_one, open_context
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.domain.cluster import Event


def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    since: Annotated[int | None, typer.Option(min=0, help="Only events after this number; 0 is all.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Events to show; with --follow, how many of the last come first.")
    ] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the log of everything that happened: the last events, or those after a number.

    Numbers grow in the order of the events: `--follow --since N` goes on after number N without a gap and without a
    repetition. With --follow, json is one document a line.
    """

    with open_context(ctx) as context:
        if follow:

            def read(last: int | None) -> "list[Event]":
                return admin.events.latest(context, limit)[0] if last is None else admin.events.since(context, last)

            def show_one(event: "Event") -> None:
                _show(ctx, output, event)

            log.follow(ctx, lambda: admin.events.listening(context), read, lambda event: event.seq, since, show_one)
            return
        entries = admin.events.latest(context, limit)[0] if since is None else admin.events.since(context, since, limit)

    document = {"events": [documents.cli.event_document(event) for event in entries]}
    emit(ctx, output, document, lambda: map(views.events.event_line, entries), [str(event.seq) for event in entries])


def _show(ctx: typer.Context, output: Output, event: "Event") -> None:

    emit_one(ctx, output, documents.cli.event_document(event), lambda: views.events.event_line(event), str(event.seq))
