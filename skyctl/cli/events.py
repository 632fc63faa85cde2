"""skyctl events"""

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents, domain
from skyctl.cli import desk, listing, views
from skyctl.cli import follow as log
from skyctl.cli.arguments import complete_worker
from skyctl.cli.context import Output, OutputOption, emit, emit_one
from skyctl.domain.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyctl.documents.http import Document

PAGE = 50
NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def complete_kind(incomplete: str) -> list[str]:
    """Return the kinds of events that begin so."""
    return [kind.value for kind in domain.events.EventKind if kind.value.startswith(incomplete)]


WorkerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORKER",
        help=f"Only of this worker, removed ones too; {listing.SEVERAL}.",
        autocompletion=complete_worker,
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND", help=f"Only of this kind, such as removed; {listing.SEVERAL}.", autocompletion=complete_kind
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        "-n",
        min=1,
        max=1_000_000,
        help=f"How many; else {PAGE}, and all of a time, or with -o json, yaml or name.",
    ),
]


def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Since 1h30m, 2w, a date, or after the event of a number; 0 is all."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Until so long ago, or before a date.")] = None,
    worker: WorkerOption = None,
    kind: KindOption = None,
    limit: LimitOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the log of everything that happened: the last events, or those since a time or a number.

    Numbers grow in the order of the events: `--follow --since N` goes on after number N without a gap and without a
    repetition. Where events after N were kept long enough and are gone, a warning says so, and `beginsAfter` in json.
    With --follow, json is one document a line. Times are local, in UTC with --utc.
    """

    if follow and until is not None:
        raise ValidationError("--follow goes on, and --until ends", "give one of them")
    number = int(since) if since is not None and NUMBER.fullmatch(since) else None
    query: dict[str, str | int | None] = {
        "kind": listing.joined(listing.chosen("--kind", kind, domain.events.EventKind)),
        "worker": listing.joined(listing.words(worker)),
    }
    times = {"from": ("--since", since if number is None else None), "until": ("--until", until)}
    _points(times, datetime.now(UTC))  # what is no time is said before anybody is asked
    is_timed = any(said for _, said in times.values())
    with desk.open_desk(ctx) as at:
        if is_timed:
            query |= _points(times, datetime.fromisoformat(desk.monitor(at)["readAt"]))
        if follow:
            _follow(ctx, at, output, query, number, limit or (None if is_timed else PAGE))
            return
        many = limit if is_timed else listing.size(limit, output, PAGE)
        document = _latest(at, query, many) if number is None else _since(at, query, number, many)
    _tell(document.get("beginsAfter"))
    names = [str(event["seq"]) for event in document["events"]]
    emit(ctx, output, document, lambda: views.events.event_lines(document), names)


def _points(times: "Mapping[str, tuple[str, str | None]]", now: datetime) -> dict[str, str]:
    """Return the times of options, by the manager's clock and our own zone. Raises ValidationError that names the
    option."""
    return {
        field: documents.times.point(option, said, now).isoformat()
        for field, (option, said) in times.items()
        if said is not None
    }


def _latest(at: desk.Desk, query: desk.Query, limit: int | None) -> "Document":
    events = desk.last(at, "GET /api/events", "events", "seq", query, limit)["events"]
    return {"events": events}


def _since(at: desk.Desk, query: desk.Query, number: int, limit: int | None) -> "Document":
    """Return the events after a number, and after which one the log begins where some of them are gone."""
    document: Document = {"events": []}
    for size in desk.sizes(limit):
        answer = at.ask("GET /api/events", {**query, "since": number, "limit": size})["data"]
        document["events"] += answer["events"]
        document |= {"beginsAfter": answer["beginsAfter"]} if answer["beginsAfter"] else {}
        if len(answer["events"]) < size:
            break
        number = answer["events"][-1]["seq"]
    return document


def _follow(
    ctx: typer.Context, at: desk.Desk, output: Output, query: desk.Query, number: int | None, limit: int | None
) -> None:
    """Show the events after a number, or the last ones, and go on with what comes."""
    gone: int | None = None
    told: int | None = None

    def read(last: int | None) -> "list[Document]":
        nonlocal gone, told
        if last is None:
            latest: list[Document] = _latest(at, query, limit)["events"]
            return latest
        found = _since(at, query, last, desk.MOST_AT_ONCE)
        missing = found.get("beginsAfter")
        gone, told = (missing if missing != told else None), missing
        _tell(gone)
        events: list[Document] = found["events"]
        return events

    def show_one(event: "Document") -> None:
        nonlocal gone
        document = event | ({"beginsAfter": gone} if gone else {})
        emit_one(ctx, output, document, lambda: views.events.event_line(document), str(event["seq"]))
        gone = None

    log.follow(ctx, at.listening, read, lambda event: int(event["seq"]), number, show_one)


def _tell(gone: int | None) -> None:
    """Say that events are missing, also where only results are wanted: who reads on from a number counts on all."""
    if gone:
        sys.stderr.write(
            f"warning: the log begins after number {gone}: up to there, events kept long enough are gone\n"
        )
