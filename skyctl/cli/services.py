"""skyctl services ..."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from skyctl import documents
from skyctl.cli import follow, views
from skyctl.cli.arguments import (
    CpuOption,
    DiskOption,
    DryRunOption,
    LimitOption,
    MemoryOption,
    OffsetOption,
    OrganizationOption,
    ServiceArgument,
    WorkerOption,
    YesOption,
    complete_service,
)
from skyctl.cli.context import Output, OutputOption, actor, confirm, emit, group, info, open_context, options
from skyctl.domain.errors import ExitCode, ValidationError
from skyctl.domain.states import DeploymentStatus, EndpointMode
from skyctl.domain.text import printable, reference
from skyctl.operations import admin, shared

if TYPE_CHECKING:
    from skyctl.domain.workloads import Deployment, Organization, Planned, Service, ServiceSpec
    from skyctl.operations.shared.context import Context

PAGE = 100
COMMAND = "skyctl.command"  # where the words behind `--` are kept

app = typer.Typer(help="Services: deploy, list, look at, adopt, remove.", rich_markup_mode=None)
group(app)


class BeforeCommand(TyperCommand):
    """A command that ends at `--`; what stands behind is for a container."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words behind `--` away, and keep them."""
        if "--" in args:
            end = args.index("--")
            args, ctx.meta[COMMAND] = args[:end], args[end + 1 :]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Show in the help that there may be more."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


@app.command("deploy", cls=BeforeCommand)
def deploy(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Its name; else the file's.", autocompletion=complete_service),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="All of it, as YAML; options and NAME win.")] = None,
    image: Annotated[str | None, typer.Option(help="Image, such as nginx:1.27.")] = None,
    organization: OrganizationOption = None,
    cpu: CpuOption = None,
    memory: MemoryOption = None,
    disk: DiskOption = None,
    env: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A variable; repeatable.")] = None,
    env_from: Annotated[
        list[Path] | None, typer.Option(help="A file of KEY=VALUE lines, for secrets; repeatable.")
    ] = None,
    port: Annotated[list[str] | None, typer.Option(metavar="PORT", help="80, 8080:80 or 53/udp; repeatable.")] = None,
    endpoint_mode: Annotated[EndpointMode | None, typer.Option(help="How its name is resolved.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A label; repeatable.")] = None,
    region: Annotated[str | None, typer.Option(help="Only workers of this region.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only workers of this pool.")] = None,
    spread: Annotated[str | None, typer.Option(help="Services of one group go to different workers.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it runs, or has failed.")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="With --wait, no longer than that.")] = "5m",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say where it would go, and why.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Deploy a service, or change one where it is.

    A new one goes to the worker that the placement rule chooses. What is not given stays as it is; variables
    and labels are added. With a file, what it does not say is the default. COMMAND is what its container runs.
    """

    arguments = {
        "name": name,
        "image": image,
        "cpu": cpu,
        "memory": memory,
        "disk": disk,
        "ports": port,
        "command": ctx.meta.get(COMMAND),
        "endpointMode": endpoint_mode,
        "region": region,
        "pool": pool,
        "spread": spread,
    }
    seconds = documents.http.duration("--timeout", timeout).total_seconds()
    pairs = _pairs(env, env_from, label)
    stored = _file(file)
    with open_context(ctx) as context:
        where = admin.services.organization(context, organization, make=True, dry_run=dry_run)
        spec = _spec(context, where, stored, arguments, pairs)
        planned = admin.deploy.deploy(context, actor(), where, spec, dry_run=dry_run)
        if wait and not dry_run:
            _wait_until_it_runs(ctx, context, where, spec.name, seconds)
    _print_planned(ctx, output, planned, "would go" if dry_run else "runs" if wait else "goes")


@app.command("list")
def list_services(
    ctx: typer.Context,
    organization: OrganizationOption = None,
    worker: WorkerOption = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="All that the swarm runs, whoever deployed it.")
    ] = False,
    limit: LimitOption = PAGE,
    offset: OffsetOption = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """List services by organization and name: status, worker, image.

    With --all every service of the swarm, as the engine has it: how many of its containers run, and where.
    """

    if everything:
        if organization is not None or worker is not None or offset or limit != PAGE:
            raise ValidationError("--all lists the whole swarm", "leave --org, --worker, --limit and --offset out")
        _list_swarm(ctx, output)
        return
    with open_context(ctx) as context:
        where = admin.services.organization(context, organization) if organization is not None else None
        worker_id = shared.lookup.find_worker(context, worker).id if worker is not None else None
        page = admin.services.list_services(
            context, organization=where, worker_id=worker_id, limit=limit, offset=offset
        )

    names = [service.spec.name for service in page.services]
    wide = output is Output.WIDE
    emit(
        ctx,
        output,
        documents.cli.services_document(page),
        lambda: views.workloads.service_table(page, offset, wide=wide),
        names,
    )


def _list_swarm(ctx: typer.Context, output: Output) -> None:

    with open_context(ctx) as context:
        found = admin.swarm_services.everything(context)
    emit(
        ctx,
        output,
        documents.cli.swarm_services_document(found),
        lambda: views.swarm.services_table(found, wide=output is Output.WIDE),
        [service.engine.name for service in found],
    )


@app.command("show")
def show_service(
    ctx: typer.Context,
    service: ServiceArgument,
    organization: OrganizationOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a service, its deployments and its migrations."""

    with open_context(ctx) as context:
        record = _service(context, service, organization)
        (past, moves), now = admin.services.history(context, record.id), admin.workers.read_at(context)

    document = documents.cli.service_history_document(record, past, moves)
    emit(ctx, output, document, lambda: views.workloads.service_details(record, past, moves, now), [record.spec.name])


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

    with open_context(ctx) as context:
        record = _service(context, service, organization)
        named = f"{printable(record.spec.name)} of {printable(record.organization)}"
        if dry_run:
            info(ctx, f"{named} ({record.id}) would be removed")
            return
        confirm(f"Remove {named} ({record.status.value})?", yes=yes)
        admin.services.remove(context, record.id, actor())
    if not options(ctx).quiet:
        sys.stdout.write(f"{printable(record.spec.name)} removed\n")


def _file(path: Path | None) -> dict[str, Any] | None:

    return None if path is None else documents.manifest.read_file(path)


def _pairs(env: list[str] | None, env_from: list[Path] | None, label: list[str] | None) -> dict[str, dict[str, str]]:
    """The variables and labels of options; what is given by itself wins over a file of variables."""

    variables = {key: value for path in env_from or () for key, value in documents.manifest.variables(path).items()}
    return {
        "env": variables | documents.manifest.pairs("--env", env or ()),
        "labels": documents.manifest.pairs("--label", label or ()),
    }


def _spec(
    context: "Context",
    where: "Organization",
    stored: dict[str, Any] | None,
    arguments: dict[str, Any],
    pairs: dict[str, dict[str, str]],
) -> "ServiceSpec":
    """Return the wanted service: of the file, else of what the service is, and of the options that are given."""

    name = arguments["name"] or (stored or {}).get("name")
    if not name:
        raise ValidationError(
            "NAME is missing", "skyctl services deploy NAME --image IMAGE, or -f with a file that has a name"
        )
    before = None if stored is not None else admin.services.existing(context, where, str(name))
    fields = stored if stored is not None else documents.manifest.fields(before.spec) if before else {}
    fields = fields | {key: value for key, value in arguments.items() if value not in (None, [])}
    if before:
        fields["name"] = before.spec.name
    for key, added in pairs.items():
        if added:
            earlier = fields.get(key) or {}
            fields[key] = (earlier | added) if isinstance(earlier, dict) else earlier
    if not fields.get("image"):
        raise ValidationError(f"image is missing: there is no service {name!r} yet", "give --image, such as nginx:1.27")
    typed = [key for key, value in arguments.items() if value not in (None, [])]
    typed += [key for key, added in pairs.items() if added and key not in (stored or {})]
    return documents.manifest.spec(fields, typed)


def _service(context: "Context", reference: str, organization: str | None) -> "Service":

    where = admin.services.organization(context, organization) if organization is not None else None
    return shared.lookup.find_service(context, reference, where)


def _wait_until_it_runs(
    ctx: typer.Context, context: "Context", where: "Organization", name: str, seconds: float
) -> None:
    """Wait for the service's last deployment. Raises Exit where it has failed, or takes longer."""
    service = admin.services.existing(context, where, name)
    if service is None:
        return
    deployment = admin.services.history(context, service.id)[0][0]
    if note := views.workers.monitor_footnote(
        admin.workers.list_workers(context, limit=1),
        context.health.heartbeat_interval,
        "nobody follows what becomes of it",
    ):
        info(ctx, note)

    def is_over() -> bool:
        nonlocal deployment
        now = next(entry for entry in admin.services.history(context, service.id)[0] if entry.id == deployment.id)
        if now.log and now.log != deployment.log:
            info(ctx, f"the engine: {printable(now.log)}")
        deployment = now
        return now.status not in (DeploymentStatus.PENDING, DeploymentStatus.BUILDING, DeploymentStatus.DEPLOYING)

    known = reference(service.spec.name, service.id)
    see = f"see `skyctl services show {known}`"
    follow.watch(ctx, context, is_over, seconds, f"the deployment goes on; {see}")
    if deployment.status is not DeploymentStatus.RUNNING:
        sys.stderr.write(f"error: {printable(name)} {_fate(deployment)}\nhint: {see}\n")
        raise typer.Exit(ExitCode.UNEXPECTED)


def _fate(deployment: "Deployment") -> str:

    return deployment.status.value.replace("_", " ") + (f": {printable(deployment.log)}" if deployment.log else "")


def _print_planned(ctx: typer.Context, output: Output, planned: "Planned", verb: str) -> None:

    def line() -> list[str]:
        why = f": {printable(planned.reason)}" if planned.reason else ""
        where = f"{'on' if verb == 'runs' else 'to'} {printable(planned.target)}"
        return [f"{printable(planned.service_name)} {verb} {where}{why}"]

    if output is not Output.TABLE or not options(ctx).quiet:
        emit(ctx, output, documents.cli.planned_document(planned), line, [planned.service_name])
