"""skyctl services scale, restart, rollback: what the swarm runs, whoever deployed it."""

import sys
from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli import desk
from skyctl.cli.arguments import OrganizationOption, YesOption, complete_service
from skyctl.cli.context import confirm, info, say
from skyctl.domain.errors import ExitCode, SkyctlError, ValidationError
from skyctl.domain.text import printable

SERVICE = "/api/swarm/services/{reference}"
SwarmServiceArgument = Annotated[
    str,
    typer.Argument(metavar="SERVICE", help="Any of the swarm, by its name or id.", autocompletion=complete_service),
]


def scale(
    ctx: typer.Context,
    numbers: Annotated[
        list[str], typer.Argument(metavar="SERVICE=N", help="A service of the swarm, and how many containers.")
    ],
    organization: OrganizationOption = None,
) -> None:
    """Change how many containers services have; those that run stay as they are.

    Of a service that skyctl deployed or adopted the number is written down, too. Exit code 7 when some could not be
    scaled.
    """

    wanted = [_number(text) for text in numbers]
    failed: list[SkyctlError] = []
    where = {"organization": organization}
    with desk.open_desk(ctx) as at:
        for name, replicas in wanted:
            try:
                done = at.ask(f"POST {SERVICE}/scale", where, {"replicas": replicas}, reference=name)["data"]
            except SkyctlError as error:
                if len(wanted) == 1:
                    raise
                failed.append(error)
                sys.stderr.write(f"error: {printable(name)}: {printable(error.message)}\n")
                continue
            verb, noun = "gets" if done["changed"] else "has", f"container{'s' * (replicas != 1)}"
            say(ctx, f"{printable(done['service'])} {verb} {replicas} {noun}")
    if failed:
        raise typer.Exit(ExitCode.PARTLY_DONE if len(failed) < len(wanted) else failed[0].exit_code)


def restart(ctx: typer.Context, service: SwarmServiceArgument, organization: OrganizationOption = None) -> None:
    """Make a service's containers anew, one after the other.

    In the order that the service itself says: of what skyctl deployed, each new one runs before an old one is stopped.
    """

    with desk.open_desk(ctx) as at:
        done = at.ask(f"POST {SERVICE}/restart", {"organization": organization}, reference=service)["data"]
    say(ctx, f"{printable(done['service'])} is being restarted")


def rollback(
    ctx: typer.Context, service: SwarmServiceArgument, organization: OrganizationOption = None, yes: YesOption = False
) -> None:
    """Go back to what a service was before its owner's last change.

    Moves by skyctl are no changes of the owner's: `docker service rollback` would only undo the last of them. What
    changes is said before; of the swarm's specification the names of the fields.
    """

    where = {"organization": organization}
    with desk.open_desk(ctx) as at:
        way = at.ask(f"POST {SERVICE}/rollback", where, {"dryRun": True}, reference=service)["data"]
        for change in way["changes"]:
            info(ctx, f"{way['service']}: {documents.changes.Change(**change).text}")
        confirm(f"Go back to what {printable(way['service'])} was before its last change?", yes=yes)
        at.ask(f"POST {SERVICE}/rollback", where, {"expected": way["state"]}, reference=service)
    say(ctx, f"{printable(way['service'])} goes back to what it was")


def _number(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not equals or not name:
        raise ValidationError(f"{text!r} is not SERVICE=N", "skyctl services scale web=3")
    return name, documents.manifest.replicas(number, 0)
