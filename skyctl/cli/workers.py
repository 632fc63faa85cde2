"""skyctl workers ..."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl.cli.context import (
    Output,
    OutputOption,
    actor,
    confirm,
    emit,
    group,
    open_world,
    options,
    say,
    settings,
)
from skyctl.model import WorkerStatus

if TYPE_CHECKING:
    from uuid import UUID

    from skyctl.model import Actor, Worker
    from skyctl.operations.world import World

app = typer.Typer(help="Hosts of the cluster: invite, list, look at, drain, remove.", rich_markup_mode=None)
group(app)


def complete_worker(context: typer.Context, incomplete: str) -> list[str]:
    """Names of workers that begin so; none where the database is away. The embedded database is not started for it."""
    from skyctl.embedded import EmbeddedPostgres
    from skyctl.errors import SkyctlError

    try:
        given = settings(context)
        if given.database_url is None and not EmbeddedPostgres(given.data_dir).answers():
            return []
        from skyctl.operations import workers

        with open_world(context) as world:
            return workers.names_from(world, incomplete)
    except (SkyctlError, OSError):
        return []


WorkerArgument = Annotated[
    str,
    typer.Argument(
        metavar="WORKER", help="An id, a unique beginning of one, or a name.", autocompletion=complete_worker
    ),
]

WorkersArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="WORKER...",
        help="Ids, unique beginnings of them, or names.",
        autocompletion=complete_worker,
    ),
]
ReasonOption = Annotated[str | None, typer.Option(help="Why; events and `workers show` tell it.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command("install-script")
def install_script(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="The worker's name; else worker-HOSTNAME.")] = None,
    api_url: Annotated[str | None, typer.Option(help="Where the host reaches the API; else SKYCTL_API_URL.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let the agent send its token over plain HTTP.")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="json also gives the id and the token.")
    ] = Output.TABLE,
) -> None:
    """Invite a worker: print the script that makes a host one.

    Run it on the host as root: skyctl workers install-script | ssh root@HOST sh

    The script carries the worker's token: treat it as a secret, and use it for one host.
    """
    from dataclasses import replace

    from skyctl import settings as settings_module
    from skyctl import wire, wiring
    from skyctl.operations import workers

    given = settings(context)
    if api_url:
        given = replace(given, api_url=settings_module.http_url("--api-url", api_url))
    wanted = wire.worker_name(name) if name is not None else None
    with wiring.open_world(given) as world:
        invitation, script = workers.generate_script(world, actor(), wanted, insecure=insecure)
    if workers.is_loopback(given.api_url):
        say(
            context,
            f"note: the script reaches the API at {given.api_url}, so only from this machine; see SKYCTL_API_URL",
        )
    document = {"workerId": str(invitation.worker_id), "token": invitation.token, "script": script}
    if output in (Output.TABLE, Output.WIDE):
        sys.stdout.write(script)
    else:
        emit(context, output, document, list, [str(invitation.worker_id)])


@app.command("list")
def list_workers(
    context: typer.Context,
    status: Annotated[WorkerStatus | None, typer.Option(help="Only workers of this status.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Only workers with this in their name, hostname, address or id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Workers on the page.")] = 100,
    offset: Annotated[int, typer.Option(min=0, max=999_999_999, help="Workers to pass over.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """List workers by name: status, load, and when they were last heard."""
    from skyctl import documents, wire
    from skyctl.operations import workers

    wanted = wire.text_filter("--search", search) if search else None
    with open_world(context) as world:
        page = workers.list_workers(world, status=status, search=wanted, limit=limit, offset=offset)
        interval = world.limits.heartbeat_interval
    from skyctl.cli import show

    names = [worker.name for worker in page.workers]
    emit(
        context,
        output,
        documents.page_document(page),
        lambda: show.worker_table(page, wide=output is Output.WIDE),
        names,
    )
    if page.total and (note := show.monitor_footnote(page, interval)):
        say(context, note)


@app.command("show")
def show_worker(context: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one worker."""
    from skyctl import wire
    from skyctl.operations import workers

    with open_world(context) as world:
        found, now = workers.find(world, worker), workers.read_at(world)
    from skyctl.cli import show

    emit(context, output, wire.worker_document(found), lambda: show.worker_details(found, now), [found.name])


@app.command("why")
def explain(context: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Tell why a worker has its status: what decided it, what the facts are now, what would change it."""
    from skyctl import documents
    from skyctl.operations import why, workers

    with open_world(context) as world:
        found = why.diagnose(world, workers.find(world, worker).id)
    from skyctl.cli import reasons

    emit(context, output, documents.diagnosis_document(found), lambda: reasons.diagnosis(found), [found.worker.name])


@app.command("drain")
def drain(
    context: typer.Context, workers: WorkersArgument, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Let workers take nothing new, until `undrain`. Several are all looked up before any is changed."""
    from skyctl.operations import drains
    from skyctl.workload import DrainWish

    def operation(world: "World", worker_id: "UUID", who: "Actor", why: str | None) -> "Worker":
        return drains.drain(world, [worker_id], who, DrainWish(why))[0]

    _for_each(context, workers, operation, reason, "would drain" if dry_run else "drains", dry_run=dry_run)


@app.command("undrain")
def undrain(
    context: typer.Context, workers: WorkersArgument, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Take drained workers back into service. Several are all looked up before any is changed."""
    from skyctl.operations.drains import undrain as operation

    said = "would be back in service" if dry_run else "is back in service"
    _for_each(context, workers, operation, reason, said, dry_run=dry_run)


def _for_each(
    context: typer.Context, references: list[str],
    operation: "Callable[[World, UUID, Actor, str | None], Worker]", reason: str | None, said: str, *, dry_run: bool,
) -> None:  # fmt: skip
    """Do something harmless to each of the workers, and say so."""
    from skyctl import wire
    from skyctl.operations import workers

    why = None if reason is None else wire.drain_reason(reason)
    with open_world(context) as world:
        found = {worker.id: worker for worker in [workers.find(world, reference) for reference in references]}
        for worker in found.values():
            if dry_run:
                say(context, f"{wire.printable(worker.name)} ({worker.id}) {said}")
                continue
            operation(world, worker.id, actor(), why)
            if not options(context).quiet:
                sys.stdout.write(f"{wire.printable(worker.name)} {said}\n")


@app.command("remove")
def remove_worker(
    context: typer.Context,
    worker: WorkerArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove a worker without containers; its token is refused from then on."""
    from skyctl.operations import workers
    from skyctl.wire import printable

    with open_world(context) as world:
        found = workers.find(world, worker)
        if dry_run:
            workers.check_removable(world, found)
            say(context, f"{printable(found.name)} ({found.id}) would be removed")
            return
        confirm(f"Remove {printable(found.name)} ({found.id}, {found.status.value})?", yes=yes)
        workers.remove(world, found.id, actor())
    if not options(context).quiet:
        sys.stdout.write(f"{printable(found.name)} removed\n")
