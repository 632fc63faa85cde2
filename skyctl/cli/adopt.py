"""skyctl services adopt"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.arguments import CpuOption, DiskOption, DryRunOption, MemoryOption, OrganizationOption, YesOption
from skyctl.cli.context import Output, OutputOption, actor, confirm, emit, info, open_context, options
from skyctl.domain.cluster import Capacity
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
    limits = documents.manifest.limits({"cpu": cpu, "memory": memory, "disk": disk}, Capacity())
    with open_context(ctx) as context:
        found = admin.services.adoptable(context, limits)
        those = _chosen(found, names or []) if names else found
        if dry_run or not (names or every):
            document = {"services": [documents.cli.adoptable_document(each) for each in those]}
            emit(
                ctx,
                output,
                document,
                lambda: views.workloads.adoptable_table(those),
                [each.engine.name for each in those],
            )
            return
        where = admin.services.organization(context, organization, make=True)
        if not those:
            info(ctx, "the engine has no service that is not under management")
            return
        confirm(
            f"Take {len(those)} service{'s' * (len(those) != 1)} under management of {printable(where.slug)}?", yes=yes
        )
        trouble = admin.services.adopt(context, actor(), where, those)
    _tell_adopted(ctx, those, trouble)


def _chosen(found: "Sequence[Adoptable]", names: "Sequence[str]") -> "list[Adoptable]":
    """Those of these names or ids in the engine."""

    for name in names:
        if not any(name in (each.engine.name, each.engine.id) for each in found):
            raise ServiceNotFound(
                f"the engine has no service {name!r} that is not under management", "see `skyctl services adopt`"
            )
    return [each for each in found if each.engine.name in names or each.engine.id in names]


def _tell_adopted(ctx: typer.Context, those: "Sequence[Adoptable]", trouble: "Sequence[tuple[Adoptable, str]]") -> None:

    failed = {each.engine.id for each, _ in trouble}
    if not options(ctx).quiet:
        for each in those:
            if each.engine.id not in failed:
                where = printable(each.worker_name or each.node)
                sys.stdout.write(f"{printable(each.engine.name)} is under management, on {where}\n")
    for each, why in trouble:
        said = why.removeprefix(f"{each.engine.name}: ")
        sys.stderr.write(f"error: {printable(each.engine.name)}: {printable(said)}\n")
    if trouble:
        sys.stderr.write("hint: see `skyctl services adopt`\n")
        raise typer.Exit(ExitCode.REFUSED if len(trouble) == len(those) else ExitCode.PARTLY_DONE)
