"""skyctl events"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

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
    repetition. Where events after N were kept long enough and are gone, a warning says so, and `beginsAfter` in json.
    With --follow, json is one document a line.
    """

    with open_context(ctx) as context:
        if follow:
            gone: int | None = None

            def read(last: int | None) -> "list[Event]":
                nonlocal gone
                if last is None:
                    return admin.events.latest(context, limit)[0]
                found = admin.events.since(context, last)
                gone = admin.events.begins_after(context, last)
                _tell(gone)
                return found

            def show_one(event: "Event") -> None:
                nonlocal gone
                _show(ctx, output, event, gone)
                gone = None

            log.follow(ctx, lambda: admin.events.listening(context), read, lambda event: event.seq, since, show_one)
            return
        begins_after: int | None = None
        if since is None:
            entries = admin.events.latest(context, limit)[0]
        else:
            entries = admin.events.since(context, since, limit)
            begins_after = admin.events.begins_after(context, since)
            _tell(begins_after)

    document: dict[str, Any] = {"events": [documents.cli.event_document(event) for event in entries]}
    document |= {"beginsAfter": begins_after} if begins_after else {}
    emit(ctx, output, document, lambda: map(views.events.event_line, entries), [str(event.seq) for event in entries])


def _tell(gone: int | None) -> None:
    """Say that events are missing, also where only results are wanted: who reads on from a number counts on all."""
    if gone:
        sys.stderr.write(
            f"warning: the log begins after number {gone}: up to there, events kept long enough are gone\n"
        )


def _show(ctx: typer.Context, output: Output, event: "Event", gone: int | None) -> None:
    document = documents.cli.event_document(event) | ({"beginsAfter": gone} if gone else {})
    emit_one(ctx, output, document, lambda: views.events.event_line(event), str(event.seq))
