"""skyctl workers ..."""

import sys
from typing import Annotated

import typer

from skyctl.cli.arguments import WorkerArgument, complete_worker, invited_name
from skyctl.cli.context import Output, OutputOption, actor, emit, group, open_world, say, settings
from skyctl.domain.cluster import WorkerStatus

MOST_CONTAINERS = 1000

app = typer.Typer(help="Hosts of the cluster: invite, list, look at, drain, remove.", rich_markup_mode=None)
group(app)


@app.command("install-script")
def install_script(
    context: typer.Context,
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
) -> None:
    """Invite a worker: print the script that makes a host one.

    Run it on the host as root: skyctl workers install-script | ssh root@HOST sh

    The script carries the worker's token: treat it as a secret. It is for one host, which must run it in time.
    """
    from dataclasses import replace

    from skyctl import settings as settings_module
    from skyctl import wiring
    from skyctl.documents import http
    from skyctl.operations.admin import workers
    from skyctl.operations.agents import install_links

    given = settings(context)
    lifetime = http.duration("--ttl", ttl)
    wanted = invited_name(name, worker)
    if api_url:
        given = replace(given, api_url=settings_module.http_url("--api-url", api_url))
    with wiring.open_world(given) as world:
        anew = workers.find(world, worker).id if worker is not None else None
        if link:
            worker_id, url = install_links.invite(world, actor(), wanted, insecure=insecure, ttl=lifetime, anew=anew)
            result = install_links.command(world, url)
            document = {"workerId": str(worker_id), "link": url, "command": result}
        else:
            invitation, result = workers.generate_script(
                world, actor(), wanted, insecure=insecure, ttl=lifetime, anew=anew
            )
            worker_id = invitation.worker_id
            document = {"workerId": str(worker_id), "token": invitation.token, "script": result}
    if workers.is_loopback(given.api_url):
        say(
            context,
            f"note: the script reaches the API at {given.api_url}, so only from this machine; see SKYCTL_API_URL",
        )
    if output in (Output.TABLE, Output.WIDE):
        sys.stdout.write(result)
    else:
        emit(context, output, document, list, [str(worker_id)])


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
    from skyctl import documents
    from skyctl.documents import http
    from skyctl.operations.admin import workers

    wanted = http.text_filter("--search", search) if search else None
    with open_world(context) as world:
        page = workers.list_workers(world, status=status, search=wanted, limit=limit, offset=offset)
        interval = world.limits.heartbeat_interval
    from skyctl.cli.views import workers as workers_views

    names = [worker.name for worker in page.workers]
    emit(
        context,
        output,
        documents.cli.page_document(page),
        lambda: workers_views.worker_table(page, wide=output is Output.WIDE),
        names,
    )
    if page.total and (note := workers_views.monitor_footnote(page, interval)):
        say(context, note)


@app.command("show")
def show_worker(context: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one worker."""
    from skyctl.documents import http
    from skyctl.operations.admin import drains, workers

    with open_world(context) as world:
        found, now = workers.find(world, worker), workers.read_at(world)
        (drain,) = drains.progress(world, [found.id])
    from skyctl.cli.views import workers as workers_views

    emit(
        context,
        output,
        http.worker_document(found),
        lambda: workers_views.worker_details(found, now, drain),
        [found.name],
    )


@app.command("why")
def explain(context: typer.Context, worker: WorkerArgument, output: OutputOption = Output.TABLE) -> None:
    """Tell why a worker has its status.

    What decided it, what the facts are now, what would change it; and why its containers are still there.
    """
    from skyctl import documents
    from skyctl.operations.admin import diagnosis, migrations, services, workers

    with open_world(context) as world:
        found = diagnosis.diagnose(world, workers.find(world, worker).id)
        there = services.list_services(world, worker_id=found.worker.id, limit=MOST_CONTAINERS).services
        page = migrations.list_migrations(world, worker_id=found.worker.id, limit=MOST_CONTAINERS)
        moves = [each for each in page.migrations if each.finished_at is None]
    from skyctl.cli.views import diagnosis as diagnosis_views

    document = documents.cli.diagnosis_document(found, there, moves)
    emit(context, output, document, lambda: diagnosis_views.diagnosis(found, there, moves), [found.worker.name])


@app.command("label")
def label(
    context: typer.Context,
    worker: WorkerArgument,
    region: Annotated[str | None, typer.Option(help="Its region; '' for none.")] = None,
    pool: Annotated[str | None, typer.Option(help="Its pool, such as gpu; '' for none.")] = None,
) -> None:
    """Set the region or the pool of a worker, which services may ask for.

    Containers that are there already stay.
    """
    from skyctl.documents import http
    from skyctl.domain.errors import ValidationError
    from skyctl.operations.admin import workers

    given = {key: value for key, value in (("region", region), ("pool", pool)) if value is not None}
    if not given:
        raise ValidationError("nothing to set", "give --region, --pool or both")
    labels = {key: http.label(f"--{key}", value) for key, value in given.items()}
    with open_world(context) as world:
        found = workers.label(world, workers.find(world, worker).id, actor(), labels)
    said = ", ".join(f"{key} {value}" if value else f"no {key}" for key, value in labels.items())
    say(context, f"{http.printable(found.name)}: {said}")
