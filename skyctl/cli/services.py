"""skyctl services ..."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from skyctl.cli import deploy, desk, listing, views
from skyctl.cli.arguments import (
    DryRunOption,
    OrganizationOption,
    OrganizationsOption,
    ServiceArgument,
    WorkersOption,
    YesOption,
)
from skyctl.cli.context import Output, OutputOption, confirm, emit, group, info, say
from skyctl.domain.errors import Busy, EngineUnavailable, ServiceNotFound, SkyctlError, ValidationError
from skyctl.domain.states import ServiceOrder, ServiceStatus
from skyctl.domain.text import printable

if TYPE_CHECKING:
    from skyctl.documents.http import Document

STATUSES = [status for status in ServiceStatus if status is not ServiceStatus.DELETED]

app = typer.Typer(rich_markup_mode=None)
group(app)
app.command("deploy", cls=deploy.BeforeCommand)(deploy.deploy)


@app.command("list")
def list_services(
    ctx: typer.Context,
    organization: OrganizationsOption = None,
    worker: WorkersOption = None,
    status: Annotated[list[str] | None, listing.filter_option("--status", STATUSES, "services of this status")] = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="All that the swarm runs, whoever deployed it.")
    ] = False,
    sort_by: Annotated[
        ServiceOrder, typer.Option(help="Names and statuses from the first, changes from the latest.")
    ] = ServiceOrder.ORGANIZATION,
    limit: listing.LimitOption = None,
    offset: listing.OffsetOption = 0,
    watch: listing.WatchOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List services: status, worker, image.

    With --all every service of the swarm, as the engine has it: how many of its containers run, and where.
    """

    if everything:
        if organization or worker or status or offset or limit or sort_by is not ServiceOrder.ORGANIZATION:
            raise ValidationError("--all lists the whole swarm", "leave the other options out, but --watch and -o")
        with desk.open_desk(ctx) as at:
            listing.show(ctx, at, output, lambda: _swarm(at, output), watch=watch)
        return
    query: dict[str, str | int | None] = {
        "organization": listing.joined(listing.words(organization)),
        "worker": listing.joined(listing.words(worker)),
        "status": listing.joined(listing.chosen("--status", status, STATUSES)),
        "sortBy": sort_by,
    }

    def read(at: desk.Desk) -> listing.Listed:
        document = desk.page(at, "GET /api/services", "services", query, offset, listing.size(limit, output))
        return listing.Listed(
            document,
            lambda: views.workloads.service_table(document, offset, wide=output is Output.WIDE),
            [service["name"] for service in document["services"]],
        )

    with desk.open_desk(ctx) as at:
        listing.show(ctx, at, output, lambda: read(at), watch=watch)


def _swarm(at: desk.Desk, output: Output) -> listing.Listed:
    document = at.ask("GET /api/swarm/services")["data"]
    return listing.Listed(
        document,
        lambda: views.swarm.services_table(document, wide=output is Output.WIDE),
        [service["name"] for service in document["services"]],
    )


@app.command("show")
def show_service(
    ctx: typer.Context,
    service: ServiceArgument,
    organization: OrganizationOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a service, its deployments and its migrations, and what runs of it; any of the swarm, managed or not."""

    with desk.open_desk(ctx) as at:
        try:
            where = {"organization": organization}
            document = at.ask("GET /api/services/{reference}", where, reference=service)["data"]
        except SkyctlError as error:
            if error.code != ServiceNotFound.code or organization is not None:
                raise
            in_swarm = _unmanaged(at, service)
            if in_swarm["serviceId"] is None:
                emit(ctx, output, in_swarm, lambda: views.swarm.service_details(in_swarm), [in_swarm["name"]])
                return
            document = at.ask("GET /api/services/{reference}", reference=in_swarm["serviceId"])["data"]
        document |= _in_swarm(at, document["id"])

    emit(ctx, output, document, lambda: views.workloads.service_details(document), [document["name"]])


@app.command("why")
def explain(
    ctx: typer.Context,
    service: ServiceArgument,
    organization: OrganizationOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell where a service could be moved to now, and why nowhere else.

    Of each worker the rule that excludes it, or what it is ranked by: the best is the first. Of several containers,
    which the swarm places, its own rules.
    """

    with desk.open_desk(ctx) as at:
        where = {"organization": organization}
        document = at.ask("GET /api/services/{reference}/why", where, reference=service)["data"]

    names = [place["workerName"] for place in document["places"] if place["exclusion"] is None]
    emit(ctx, output, document, lambda: views.workloads.outlook(document), names)


def _unmanaged(at: desk.Desk, service: str) -> "Document":
    try:
        found: Document = at.ask("GET /api/swarm/services/{reference}", reference=service)["data"]
    except SkyctlError as error:
        if error.code != EngineUnavailable.code:
            raise
        raise ServiceNotFound(
            f"there is no service {service!r} under management", f"of the others nobody can say: {error.message}"
        ) from error
    return found


def _in_swarm(at: desk.Desk, service_id: str) -> "Document":
    """What the swarm has of a service, or why nobody can say."""
    try:
        return {"swarm": at.ask("GET /api/swarm/services/{reference}", reference=service_id)["data"]}
    except SkyctlError as error:
        if error.code not in (EngineUnavailable.code, Busy.code, ServiceNotFound.code):
            raise
        return {"swarmTrouble": error.message}


@app.command("remove")
def remove(
    ctx: typer.Context,
    service: ServiceArgument,
    organization: OrganizationOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove a service and its container.

    What happened to it stays in the log.
    """

    _part_with(ctx, service, organization, "remove", yes=yes, dry_run=dry_run)


@app.command("release")
def release(
    ctx: typer.Context,
    service: ServiceArgument,
    organization: OrganizationOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Give a service back to the swarm, as it was.

    It runs on, without a new container, and is not managed any more: what a move or `adopt` changed of it is taken out.
    """

    _part_with(ctx, service, organization, "release", yes=yes, dry_run=dry_run)


def _part_with(
    ctx: typer.Context,
    service: str,
    organization: str | None,
    verb: Literal["remove", "release"],
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    where = {"organization": organization}
    operation = "DELETE /api/services/{reference}" if verb == "remove" else "POST /api/services/{reference}/release"
    with desk.open_desk(ctx) as at:
        found = at.ask("GET /api/services/{reference}", where, reference=service)["data"]
        named = f"{printable(found['name'])} of {printable(found['organization'])}"
        if dry_run:
            info(ctx, f"{named} ({found['id']}) would be {verb}d")
            return
        confirm(f"{verb.capitalize()} {named} ({found['status']})?", yes=yes)
        at.ask(operation, reference=found["id"])
    done = "removed" if verb == "remove" else "runs on, and is not under management any more"
    say(ctx, f"{printable(found['name'])} {done}")
