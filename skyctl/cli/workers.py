"""skyctl workers ..."""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import desk, listing, scripts, views, way
from skyctl.cli.arguments import WorkerArgument, WorkersArgument, YesOption, complete_worker, invited_name
from skyctl.cli.context import Output, OutputOption, confirm, emit, group, info, options
from skyctl.domain.errors import Busy, EngineUnavailable, SkyctlError, ValidationError
from skyctl.domain.states import WorkerOrder, WorkerStatus
from skyctl.domain.text import printable
from skyctl.settings import http_url, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from skyctl.documents.http import Document

MANY = 10_000  # from so many on, to pass over those before a page takes long

SearchOption = Annotated[
    str | None,
    typer.Option(help="Only workers with this in their name, hostname, address or id; TEXT* that begin so."),
]
AfterOption = Annotated[
    str | None,
    typer.Option(
        metavar="WORKER",
        help="Only those after this one in the order of names: a worker, or the `next` of a page.",
        autocompletion=complete_worker,
    ),
]

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("install-script")
def install_script(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Option(help="The worker's name; else worker-HOSTNAME.")] = None,
    api_url: Annotated[str | None, typer.Option(help="Where the host reaches the API; else SKYCTL_API_URL.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let the agent send its token over plain HTTP.")] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Print a command that fetches the script, once, and runs it.")
    ] = False,
    worker: Annotated[
        str | None,
        typer.Option(
            help="Invite the host of this worker anew: reinstalled, replaced, or revoked.",
            autocompletion=complete_worker,
        ),
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long the invitation is good: 30m, 2h, 1d.")] = "24h",
    output: Annotated[
        Output, typer.Option("--output", "-o", help="json also gives the id and the token.")
    ] = Output.TABLE,
    file: scripts.FileOption = None,
) -> None:
    """Invite a worker: print the script that makes a host one.

    Run it on the host as root: skyctl workers install-script | ssh root@HOST sh

    The script carries the worker's token: treat it as a secret. It is for one host, which must run it in time.
    """

    documents.times.duration("--ttl", ttl)
    way.prefer_database(ctx)  # `serve` has no key of releases, and must not say which one hosts pin
    body = {"ttl": ttl, "insecure": insecure, "byLink": link}
    given = {"name": invited_name(name, worker), "worker": worker, "apiUrl": _api_url(ctx, api_url)}
    body |= {field: value for field, value in given.items() if value is not None}
    with scripts.printed(ctx, file, "" if output is Output.NAME else scripts.JOINS):
        with desk.open_desk(ctx) as at:
            document = at.ask("POST /api/invitations", body=body)["data"]
        for note in document.pop("notes"):
            info(ctx, note)
        if output.is_table:
            sys.stdout.write(document["command" if link else "script"])
        else:
            emit(ctx, output, document, list, [document["workerId"]])


def _api_url(ctx: typer.Context, typed: str | None) -> str | None:
    """Return where hosts reach the API, where that is said here; else the manager knows. Raises ValidationError."""
    if typed:
        return http_url("--api-url", typed)
    if way.chosen(ctx).context:  # of another manager, whose hosts are not to come here
        return None
    here = load(options(ctx).config)
    return here.api_url if here.is_api_url_set else None


@app.command("list")
def list_workers(
    ctx: typer.Context,
    status: Annotated[
        list[str] | None, listing.filter_option("--status", WorkerStatus, "workers of this status")
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help=f"Only workers of this region, '' for none; {listing.SEVERAL}.")
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help=f"Only workers of this pool, '' for none; {listing.SEVERAL}.")
    ] = None,
    search: SearchOption = None,
    sort_by: Annotated[
        WorkerOrder, typer.Option(help="Names and statuses from the first, load and time from the highest.")
    ] = WorkerOrder.NAME,
    after: AfterOption = None,
    limit: listing.LimitOption = None,
    offset: listing.OffsetOption = 0,
    watch: listing.WatchOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List workers: status, load, and when they were last heard.

    With `-o wide` also what runs on each, by service, whoever deployed it.
    """

    query: dict[str, str | int | None] = {
        "search": documents.http.text_filter("--search", search) if search else None,
        "status": listing.joined(listing.chosen("--status", status, WorkerStatus)),
        "region": ",".join(listing.words(region)) if region else None,
        "pool": ",".join(listing.words(pool)) if pool else None,
        "sortBy": sort_by,
    }
    place = documents.http.text_filter("--after", after) if after is not None else None

    def read(at: desk.Desk) -> listing.Listed:
        document = _page(at, query, place, offset, listing.size(limit, output))
        if output is Output.WIDE:
            _add_what_runs(at, document["workers"])
        unwatched = views.workers.monitor_footnote(document) if document["total"] else ""
        # of those after a place nobody counts how many there are
        shown = document if after is None else document | {"total": offset + len(document["workers"])}
        return listing.Listed(
            document,
            lambda: views.workers.worker_table(shown, offset, wide=output is Output.WIDE),
            [worker["name"] for worker in document["workers"]],
            [note for note in (unwatched, *_of_many(document, is_after=after is not None)) if note],
        )

    with desk.open_desk(ctx) as at:
        listing.show(ctx, at, output, lambda: read(at), watch=watch)


def _page(
    at: desk.Desk, query: "Mapping[str, str | int | None]", after: str | None, offset: int, limit: int | None
) -> "Document":
    """Return the first workers, as many as are wanted, with what is said beside them."""
    document: Document = {}
    for size in desk.sizes(limit):
        answer = at.ask("GET /api/workers", {**query, "after": after, "offset": offset, "limit": size})
        if not document:
            pages = answer["pagination"]
            document = {"workers": [], "total": pages["total"], "totalIsLeast": pages["totalIsLeast"]}
            document |= {"next": None} | {key: answer[key] for key in ("readAt", "limits", "monitor")}
        document["workers"] += answer["data"]
        document["next"] = answer["pagination"]["next"]
        if len(answer["data"]) < size:
            break
        is_by_name = query["sortBy"] == WorkerOrder.NAME and document["next"]
        after, offset = (document["next"], 0) if is_by_name else (after, offset + size)
    return document


def _of_many(page: "Document", *, is_after: bool) -> "Iterator[str]":
    """Say what a table of many workers does not: that more fit than were counted, and how one goes on."""
    if page["totalIsLeast"]:
        yield f"note: more than {page['total']} workers fit, and nobody counted how many"
    if page["next"] and (is_after or page["total"] >= MANY):
        yield f"note: those after them, as fast wherever they are: --after {shlex.quote(page['next'])}"


@app.command("show")
def show_worker(ctx: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one worker."""

    with desk.open_desk(ctx) as at:
        found = desk.worker(at, worker)
        document = at.ask("GET /api/workers/{id}", id=found["id"])["data"]
        _add_what_runs(at, [document])

    emit(ctx, output, document, lambda: views.workers.worker_details(document), [document["name"]])


def _add_what_runs(at: desk.Desk, workers: "Sequence[Document]") -> None:
    """Put into workers what runs on each, or why that is not known."""

    for first in range(0, len(workers), desk.MOST_NAMED):
        some = workers[first : first + desk.MOST_NAMED]
        try:
            there = at.ask("GET /api/swarm/runs", {"worker": ",".join(worker["id"] for worker in some)})["data"]["runs"]
        except SkyctlError as error:
            if error.code not in (EngineUnavailable.code, Busy.code):
                raise
            there = {worker["id"]: documents.workers.unknown_runs_document(error.message) for worker in some}
        for worker in some:
            worker["runs"] = there.get(worker["id"]) or documents.workers.unknown_runs_document("it was removed")


@app.command("why")
def explain(ctx: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Tell why a worker has its status.

    What decided it, what the facts are now, what would change it; and why its containers are still there.
    """

    with desk.open_desk(ctx) as at:
        found = desk.worker(at, worker)
        document = at.ask("GET /api/workers/{id}/why", id=found["id"])["data"]

    emit(ctx, output, document, lambda: views.diagnosis.diagnosis(document), [found["name"]])


@app.command("confirm")
def confirm_node(ctx: typer.Context, workers: WorkersArgument, yes: YesOption = False) -> None:
    """Say that the swarm nodes which workers claim are their own.

    The monitor finds that out by itself where a host registers from the address at which the swarm hears its node.
    Where it does not, or the node manages the swarm, it is for you to know: `workers why` tells the two addresses.
    """

    with desk.open_desk(ctx) as at:
        records = desk.workers(at, workers)
        for record in records:
            node = record["swarmNodeId"] or record["swarmNodeClaim"] or "-"
            trouble = f": {record['swarmNodeTrouble']}" if record["swarmNodeTrouble"] else ""
            question = f"Is the swarm node {printable(node)} that of {printable(record['name'])} ({record['id']})"
            confirm(f"{question}{printable(trouble)}?", yes=yes)
        for record in records:
            claim = record["swarmNodeId"] or record["swarmNodeClaim"] or ""
            node = at.ask("POST /api/workers/{id}/confirm", body={"node": claim}, id=record["id"])["data"]
            shown = f"{printable(node['hostname'])} ({printable(node['node'])})"
            info(ctx, f"{printable(record['name'])}: its swarm node is {shown}")


@app.command("label")
def label(
    ctx: typer.Context,
    worker: WorkerArgument,
    region: Annotated[str | None, typer.Option(help="Its region; '' for none.")] = None,
    pool: Annotated[str | None, typer.Option(help="Its pool, such as gpu; '' for none.")] = None,
) -> None:
    """Set the region or the pool of a worker, which services may ask for.

    Containers that are there already stay.
    """

    changes = {key: value for key, value in (("region", region), ("pool", pool)) if value is not None}
    if not changes:
        raise ValidationError("nothing to set", "give --region, --pool or both")
    labels = {key: documents.http.label(f"--{key}", value) for key, value in changes.items()}
    with desk.open_desk(ctx) as at:
        record = at.ask("PATCH /api/workers/{id}", body=labels, id=desk.worker(at, worker)["id"])["data"]
    outcome = ", ".join(f"{key} {value}" if value else f"no {key}" for key, value in labels.items())
    info(ctx, f"{printable(record['name'])}: {outcome}")
