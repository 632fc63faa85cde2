"""skyctl workers ..."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import scripts, views
from skyctl.cli.arguments import WorkerArgument, WorkersArgument, YesOption, complete_worker, invited_name
from skyctl.cli.context import Output, OutputOption, actor, confirm, emit, group, info, open_context
from skyctl.domain.errors import EngineUnavailable, ValidationError
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable
from skyctl.operations import admin, agents, shared

if TYPE_CHECKING:
    from skyctl.domain.cluster import Worker
    from skyctl.operations.shared.context import Context

MOST_CONTAINERS = 1000

app = typer.Typer(help="Hosts of the cluster: invite, list, look at, drain, remove.", rich_markup_mode=None)
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

    lifetime = documents.http.duration("--ttl", ttl)
    wanted = invited_name(name, worker)
    with scripts.printed(ctx, file, secret=output is not Output.NAME):
        with open_context(ctx, api_url=api_url) as context:
            agents.release_keys.to_pin(context)  # a script that a link gives is made by `serve`, of what is published
            existing_id = shared.lookup.find_worker(context, worker).id if worker is not None else None
            if link:
                worker_id, url = agents.install_links.invite(
                    context, actor(), wanted, insecure=insecure, ttl=lifetime, existing_id=existing_id
                )
                result = agents.install_links.command(context, url)
                document = {"workerId": str(worker_id), "link": url, "command": result}
            else:
                invitation, result = agents.invitations.generate_script(
                    context, actor(), wanted, insecure=insecure, ttl=lifetime, existing_id=existing_id
                )
                worker_id = invitation.worker_id
                document = {"workerId": str(worker_id), "token": invitation.token, "script": result}
            scripts.tell(ctx, context)
        if output in (Output.TABLE, Output.WIDE):
            sys.stdout.write(result)
        else:
            emit(ctx, output, document, list, [str(worker_id)])


@app.command("list")
def list_workers(
    ctx: typer.Context,
    status: Annotated[WorkerStatus | None, typer.Option(help="Only workers of this status.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Only workers with this in their name, hostname, address or id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Workers on the page.")] = 100,
    offset: Annotated[int, typer.Option(min=0, max=999_999_999, help="Workers to pass over.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """List workers by name: status, load, and when they were last heard."""

    wanted = documents.http.text_filter("--search", search) if search else None
    with open_context(ctx) as context:
        page = admin.workers.list_workers(context, status=status, search=wanted, limit=limit, offset=offset)
        interval = context.health.heartbeat_interval

    names = [worker.name for worker in page.workers]
    emit(
        ctx,
        output,
        documents.cli.page_document(page),
        lambda: views.workers.worker_table(page, wide=output is Output.WIDE),
        names,
    )
    if page.total and (note := views.workers.monitor_footnote(page, interval)):
        info(ctx, note)


@app.command("show")
def show_worker(ctx: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one worker."""

    with open_context(ctx) as context:
        record, now = shared.lookup.find_worker(context, worker), admin.workers.read_at(context)
        (drain,) = admin.drains.progress(context, [record.id])
        occupants = _occupants(context, record) if output in (Output.TABLE, Output.WIDE) else ""

    emit(
        ctx,
        output,
        documents.http.worker_document(record),
        lambda: views.workers.worker_details(record, now, drain, occupants),
        [record.name],
    )


def _occupants(context: "Context", worker: "Worker") -> str:
    """Return in words what runs on a worker, or why that is not known."""

    try:
        return views.swarm.occupants_text(worker, admin.swarm_services.on_worker(context, worker))
    except EngineUnavailable as error:
        return f"not known: {error.message}"


@app.command("why")
def explain(ctx: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Tell why a worker has its status.

    What decided it, what the facts are now, what would change it; and why its containers are still there.
    """

    with open_context(ctx) as context:
        diagnosis = admin.diagnosis.diagnose(context, shared.lookup.find_worker(context, worker).id)
        containers = admin.services.list_services(
            context, worker_id=diagnosis.worker.id, limit=MOST_CONTAINERS
        ).services
        page = admin.migrations.list_migrations(context, worker_id=diagnosis.worker.id, limit=MOST_CONTAINERS)
        moves = [migration for migration in page.migrations if migration.finished_at is None]

    document = documents.cli.diagnosis_document(diagnosis, containers, moves)
    emit(
        ctx, output, document, lambda: views.diagnosis.diagnosis(diagnosis, containers, moves), [diagnosis.worker.name]
    )


@app.command("confirm")
def confirm_node(ctx: typer.Context, workers: WorkersArgument, yes: YesOption = False) -> None:
    """Say that the swarm nodes which workers claim are their own.

    The monitor finds that out by itself where a host registers from the address at which the swarm hears its node.
    Where it does not, or the node manages the swarm, it is for you to know: `workers why` tells the two addresses.
    """

    with open_context(ctx) as context:
        records = shared.lookup.find_workers(context, workers)
        for record in records:
            claim = record.swarm_node_id or record.swarm_node_claim
            node = claim or "-"
            trouble = f": {record.swarm_node_trouble}" if record.swarm_node_trouble else ""
            question = f"Is the swarm node {printable(node)} that of {printable(record.name)} ({record.id})"
            confirm(f"{question}{printable(trouble)}?", yes=yes)
            _, hostname = admin.node_claims.allow(context, record.id, claim, actor())
            info(ctx, f"{printable(record.name)}: its swarm node is {printable(hostname)} ({printable(node)})")


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
    with open_context(ctx) as context:
        record = admin.workers.label(context, shared.lookup.find_worker(context, worker).id, actor(), labels)
    outcome = ", ".join(f"{key} {value}" if value else f"no {key}" for key, value in labels.items())
    info(ctx, f"{printable(record.name)}: {outcome}")
