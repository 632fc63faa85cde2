"""skyctl services deploy"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from skyctl import documents
from skyctl.cli import desk, follow, views
from skyctl.cli.arguments import CpuOption, DiskOption, MemoryOption, OrganizationOption, complete_service
from skyctl.cli.context import Output, OutputOption, emit, info, options
from skyctl.domain.errors import ExitCode, SkyctlError, ValidationError
from skyctl.domain.states import DeploymentStatus, EndpointMode
from skyctl.domain.text import printable, reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyctl.documents.http import Document
    from skyctl.documents.service_files import ServiceDocument
    from skyctl.domain.workloads import ServiceSpec

_ADDED = ("env", "labels")  # of which options add to what a file has
COMMAND = "skyctl.command"  # where the words behind `--` are kept


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


def deploy(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Its name; else the file's.", autocompletion=complete_service),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="All of it, as YAML (-: from stdin); options and NAME win.")
    ] = None,
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
    replicas: Annotated[
        int | None, typer.Option(metavar="N", help="Containers; of several the swarm places each.")
    ] = None,
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
    and labels are added. With a file, what it does not say is the default; each of its documents is a service, and all
    are checked before the first is deployed. COMMAND is what its container runs. What changes is said before. Exit code
    7 when some of several could not be deployed, or with --wait one does not run; 6 after --timeout.
    """

    arguments: dict[str, Any] = {
        "name": name,
        "image": image,
        "cpu": cpu,
        "memory": memory,
        "disk": disk,
        "ports": port,
    }
    arguments |= {"command": ctx.meta.get(COMMAND), "endpointMode": endpoint_mode, "replicas": replicas}
    arguments |= {"region": region, "pool": pool, "spread": spread}
    seconds = documents.times.duration("--timeout", timeout).total_seconds()
    given = {key: value for key, value in arguments.items() if value not in (None, [])} | _pairs(env, env_from, label)
    stored = documents.service_files.read(file) if file else []
    if name and len(stored) > 1:
        raise ValidationError(f"NAME is given, and {stored[0].where} is not the only one", "leave NAME out")
    wanted = _wanted(stored, given)
    where = {} if organization is None else {"organization": organization}
    wish = _Wish(seconds if wait and not dry_run else None, dry_run, len(stored) > 1)
    with desk.open_desk(ctx) as at:
        done = [_deploy_one(ctx, at, service | where, wish) for service in wanted]
    _print_deployed(ctx, output, done, wish)


class _Wish(NamedTuple):
    """For how many seconds to wait until a service runs (None: not at all), whether nothing is to be changed, whether
    it is one of several."""

    patience: float | None
    dry_run: bool
    several: bool


def _pairs(env: list[str] | None, env_from: list[Path] | None, label: list[str] | None) -> dict[str, dict[str, str]]:
    """The variables and labels of options; what is given by itself wins over a file of variables."""

    variables = {
        key: value for path in env_from or () for key, value in documents.service_files.variables(path).items()
    }
    added = {
        "env": variables | documents.manifest.pairs("--env", env or ()),
        "labels": documents.manifest.pairs("--label", label or ()),
    }
    return {key: pairs for key, pairs in added.items() if pairs}


def _wanted(stored: "Sequence[ServiceDocument]", given: "Mapping[str, Any]") -> "list[Document]":
    """Return the wanted services, of the options or the file. Raises ValidationError, which says in which document the
    mistake is where there are several."""
    if not stored:
        return [_changed(given)]
    if len(stored) == 1:
        return [documents.manifest.fields(_of_file(stored[0], given))]
    specs: list[ServiceSpec] = []
    for document in stored:
        try:
            spec = _of_file(document, given)
            if any(documents.manifest.is_same_service(spec, other) for other in specs):
                raise ValidationError(f"name: {spec.name!r} is that of a document before", "give each service its own")
        except ValidationError as error:
            raise ValidationError(f"{document.where}: {error.message}", error.hint) from error
        specs.append(spec)
    return [documents.manifest.fields(spec) for spec in specs]


def _changed(given: "Mapping[str, Any]") -> "Document":
    """Return what is to be changed of a service. Raises ValidationError."""
    _check_name(given)
    documents.manifest.spec({"image": "any", **given}, given)
    return {**given, "keep": True}


def _of_file(stored: "ServiceDocument", given: "Mapping[str, Any]") -> "ServiceSpec":
    """Return the service of a document, in which what is given by options wins. Raises ValidationError."""
    fields = documents.manifest.changed(stored.fields, given)
    _check_name(fields)
    if not fields.get("image"):
        raise ValidationError("image is missing", "say it in the file, or give --image, such as nginx:1.27")
    return documents.manifest.spec(fields, [key for key in given if key not in _ADDED or key not in stored.fields])


def _check_name(fields: "Mapping[str, Any]") -> None:
    if not fields.get("name"):
        raise ValidationError(
            "NAME is missing", "skyctl services deploy NAME --image IMAGE, or -f with a file that has a name"
        )


def _deploy_one(ctx: typer.Context, at: desk.Desk, service: "Document", wish: _Wish) -> "Document | int":
    """Say what changes of a service, and deploy it; of several, an error is said, and its exit code returned."""
    try:
        deployed: Document = at.ask("POST /api/services", body={**service, "dryRun": True})["data"]
        for change in deployed["changes"]:
            info(ctx, f"{service['name']}: {documents.changes.Change(**change).text}")
        if not wish.dry_run:
            shown, deployed = deployed["changes"], at.ask("POST /api/services", body=service)["data"]
            for change in [change for change in deployed["changes"] if change not in shown]:
                info(ctx, f"{service['name']}: changed meanwhile: {documents.changes.Change(**change).text}")
        if deployed["unpinned"]:
            image, why = deployed["image"], deployed["unpinned"]
            info(ctx, f"warning: a move may run another image, since {image} has no digest: {why}")
        if wish.patience is not None:
            _wait_until_it_runs(ctx, at, deployed, wish.patience)
    except SkyctlError as error:
        if not wish.several:
            raise
        sys.stderr.write(f"error: {printable(service['name'])}: {printable(error.message)}\n")
        return int(error.exit_code)
    except typer.Exit as error:
        if not wish.several or error.exit_code == follow.INTERRUPTED:
            raise
        return error.exit_code
    return deployed


def _wait_until_it_runs(ctx: typer.Context, at: desk.Desk, deployed: "Document", seconds: float) -> None:
    """Wait for the service's last deployment. Raises Exit where it has failed, or takes longer."""
    query = {"organization": deployed["organization"]}
    service = at.ask("GET /api/services/{reference}", query, reference=deployed["service"])["data"]
    deployment = service["deployments"][0]
    if warning := views.workers.monitor_warning(desk.monitor(at), "nobody follows what becomes of it"):
        info(ctx, warning)

    def is_over() -> bool:
        nonlocal deployment
        past = at.ask("GET /api/services/{reference}", reference=service["id"])["data"]["deployments"]
        now = next(entry for entry in past if entry["id"] == deployment["id"])
        if now["error"] and now["error"] != deployment["error"]:
            info(ctx, f"the engine: {printable(now['error'])}")
        deployment = now
        return now["status"] not in (DeploymentStatus.PENDING, DeploymentStatus.BUILDING, DeploymentStatus.DEPLOYING)

    known = reference(service["name"], service["id"])
    see = f"see `skyctl services show {known}`"
    follow.watch(ctx, at, is_over, seconds, f"the deployment goes on; {see}")
    if deployment["status"] != DeploymentStatus.RUNNING:
        sys.stderr.write(f"error: {printable(service['name'])} {_fate(deployment)}\nhint: {see}\n")
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _fate(deployment: "Document") -> str:
    why = f": {printable(deployment['error'])}" if deployment["error"] else ""
    return f"{deployment['status'].replace('_', ' ')}{why}"


def _print_deployed(ctx: typer.Context, output: Output, done: "Sequence[Document | int]", wish: _Wish) -> None:
    """Say where services went. Raises Exit where some could not be deployed."""
    deployed = [each for each in done if not isinstance(each, int)]
    if output is not Output.TABLE or not options(ctx).quiet:
        names = [each["service"] for each in deployed]
        document = {"services": deployed} if wish.several else deployed[0]
        emit(ctx, output, document, lambda: [_line(each, wish) for each in deployed], names)
    failures = [each for each in done if isinstance(each, int)]
    if failures:
        raise typer.Exit(ExitCode.PARTLY_DONE if deployed else failures[0])


def _line(deployed: "Document", wish: _Wish) -> str:
    verb = "would go" if wish.dry_run else "goes" if wish.patience is None else "runs"
    reason, target = printable(deployed["reason"]), deployed["target"]
    where = f" {'on' if verb == 'runs' else 'to'} {printable(target)}" if target else ""
    return f"{printable(deployed['service'])} {verb}{where}" + (f": {reason}" if reason else "")
