"""skyctl services adopt"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyctl import documents, domain
from skyctl.cli import desk, views
from skyctl.cli.arguments import (
    CpuOption,
    DiskOption,
    DryRunOption,
    MemoryOption,
    OrganizationOption,
    YesOption,
)
from skyctl.cli.context import Output, OutputOption, confirm, emit, info, say
from skyctl.domain.errors import ExitCode, InvalidValue, ValidationError
from skyctl.domain.states import EvenIf
from skyctl.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyctl.documents.http import Document


def adopt(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Names or ids in the engine.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that the engine has.")] = False,
    stack: Annotated[str | None, typer.Option(help="All of a stack.")] = None,
    even_if: Annotated[list[EvenIf] | None, typer.Option(help="Take it though that speaks against it.")] = None,
    organization: OrganizationOption = None,
    cpu: CpuOption = None,
    memory: MemoryOption = None,
    disk: DiskOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take the engine's own services under management.

    They go on where they are, without a new container. Without NAME, --all and --stack it shows which there are, and
    what speaks against each. Exit code 7 when some could not be adopted, 4 when none.
    """

    if every + bool(names) + (stack is not None) > 1:
        raise ValidationError("of NAME, --all and --stack more than one is given", "give one of them")
    given = {"cpu": cpu, "memory": memory, "disk": disk, "stack": stack, "organization": organization}
    said: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    _check(said)
    words = list(even_if or ())
    with desk.open_desk(ctx) as at:
        if dry_run or not (names or every or stack):
            query = {key: value for key, value in said.items() if key != "organization"}
            query |= {"service": ",".join(names or ()) or None, "evenIf": ",".join(words) or None}
            document = at.ask("GET /api/swarm/adoptable", query)["data"]
            found = [service["name"] for service in document["services"]]
            emit(ctx, output, document, lambda: views.workloads.adoptable_table(document), found)
            return
        body = said | {"evenIf": words} | ({"all": True} if every else {}) | ({"services": names} if names else {})
        planned = at.ask("POST /api/swarm/adopt", body=body | {"dryRun": True})["data"]
        if not planned["services"]:
            info(ctx, "the engine has no service that is not under management")
            return
        noun = f"{len(planned['services'])} service{'s' * (len(planned['services']) != 1)}"
        confirm(f"Take {noun} under management of {printable(planned['organization'])}?", yes=yes)
        shown = said | {"evenIf": words, "services": [service["swarmServiceId"] for service in planned["services"]]}
        shown.pop("stack", None)
        adopted = at.ask("POST /api/swarm/adopt", body=shown)["data"]["services"]
    _report(ctx, adopted)


def _check(said: "Mapping[str, str]") -> None:
    """Refuse a limit that is none, by the name of its option."""
    try:
        documents.manifest.limits(said, domain.cluster.Capacity())
    except InvalidValue as error:
        raise error.named(documents.manifest.OPTIONS) from None


def _report(ctx: typer.Context, adopted: "Sequence[Document]") -> None:

    failures = [service for service in adopted if service["error"]]
    for service in adopted:
        if service not in failures:
            where = printable(service["workerName"] or f"{service['replicas']} containers")
            say(ctx, f"{printable(service['name'])} is under management, on {where}")
    for service in failures:
        name, reason = service["name"], service["error"]
        sys.stderr.write(f"error: {printable(name)}: {printable(reason.removeprefix(f'{name}: '))}\n")
    if failures:
        sys.stderr.write("hint: see `skyctl services adopt`\n")
        raise typer.Exit(ExitCode.REFUSED if len(failures) == len(adopted) else ExitCode.PARTLY_DONE)
