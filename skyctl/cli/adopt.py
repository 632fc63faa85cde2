"""skyctl services adopt"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents, domain
from skyctl.cli import views
from skyctl.cli.arguments import CpuOption, DiskOption, DryRunOption, MemoryOption, OrganizationOption, YesOption
from skyctl.cli.context import Output, OutputOption, actor, confirm, emit, info, open_context, options
from skyctl.domain.errors import ExitCode, ServiceNotFound, ValidationError
from skyctl.domain.text import printable
from skyctl.operations import admin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyctl.domain.workloads import Adoptable


def adopt(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Names or ids in the engine.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the engine has.")] = False,
    organization: OrganizationOption = None,
    cpu: CpuOption = None,
    memory: MemoryOption = None,
    disk: DiskOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take the engine's own services under management.

    They go on where they are, without a new container. Without NAME and --all it shows which there are, and what speaks
    against each. Exit code 7 when some could not be adopted, 4 when none.
    """

    if every and names:
        raise ValidationError("NAME and --all are both given", "give one of them")
    limits = documents.manifest.limits({"cpu": cpu, "memory": memory, "disk": disk}, domain.cluster.Capacity())
    with open_context(ctx) as context:
        adoptable = admin.services.adoptable(context, limits)
        services = _chosen(adoptable, names or []) if names else adoptable
        if dry_run or not (names or every):
            document = {"services": [documents.cli.adoptable_document(service) for service in services]}
            emit(
                ctx,
                output,
                document,
                lambda: views.workloads.adoptable_table(services),
                [service.engine.name for service in services],
            )
            return
        where = admin.services.organization(context, organization, make=True)
        if not services:
            info(ctx, "the engine has no service that is not under management")
            return
        confirm(
            f"Take {len(services)} service{'s' * (len(services) != 1)} under management of {printable(where.slug)}?",
            yes=yes,
        )
        failures = admin.services.adopt(context, actor(), where, services)
    _report(ctx, services, failures)


def _chosen(adoptable: "Sequence[Adoptable]", names: "Sequence[str]") -> "list[Adoptable]":
    """Return the services that have these names or ids in the engine. Raises ServiceNotFound."""

    for name in names:
        if not any(name in (service.engine.name, service.engine.id) for service in adoptable):
            raise ServiceNotFound(
                f"the engine has no service {name!r} that is not under management", "see `skyctl services adopt`"
            )
    return [service for service in adoptable if service.engine.name in names or service.engine.id in names]


def _report(ctx: typer.Context, services: "Sequence[Adoptable]", failures: "Sequence[tuple[Adoptable, str]]") -> None:

    failed = {service.engine.id for service, _ in failures}
    if not options(ctx).quiet:
        for service in services:
            if service.engine.id not in failed:
                where = printable(service.worker_name or service.node)
                sys.stdout.write(f"{printable(service.engine.name)} is under management, on {where}\n")
    for service, reason in failures:
        name = service.engine.name
        sys.stderr.write(f"error: {printable(name)}: {printable(reason.removeprefix(f'{name}: '))}\n")
    if failures:
        sys.stderr.write("hint: see `skyctl services adopt`\n")
        raise typer.Exit(ExitCode.REFUSED if len(failures) == len(services) else ExitCode.PARTLY_DONE)
