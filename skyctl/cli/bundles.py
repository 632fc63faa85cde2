"""skyctl workers bundle: everything that a host without the internet needs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli.arguments import complete_worker, invited_name
from skyctl.cli.context import actor, info, open_context
from skyctl.domain.errors import ValidationError
from skyctl.operations import admin, agents, shared


def bundle(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Option("--output", help="The folder to make.", file_okay=False)],
    platforms: Annotated[
        list[str] | None, typer.Option("--platform", help="x86_64 or aarch64; may be repeated; else both.")
    ] = None,
    packages: Annotated[
        Path | None,
        typer.Option(
            help="A folder with Debian packages to take along, in python/ and docker/.", exists=True, file_okay=False
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The worker's name; else worker-HOSTNAME.")] = None,
    worker: Annotated[
        str | None, typer.Option(help="Invite the host of this worker anew.", autocompletion=complete_worker)
    ] = None,
    api_url: Annotated[str | None, typer.Option(help="Where the host reaches the API; else SKYCTL_API_URL.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let the agent send its token over plain HTTP.")] = False,
    ttl: Annotated[str, typer.Option(help="How long the invitation is good: 30m, 2h, 1d.")] = "24h",
) -> None:
    """Make a folder from which a host installs that reaches nothing but the manager, and invite that host.

    Copy it to the host, and run there as root: sh FOLDER/install.sh --offline FOLDER

    It carries the worker's token: treat it as a secret. For further hosts it may be used with scripts of their own.
    """

    lifetime = documents.times.duration("--ttl", ttl)
    wanted = invited_name(name, worker)
    for platform in platforms or ():
        if platform not in admin.bundles.PLATFORMS:
            raise ValidationError(
                f"--platform: {platform!r} is not accepted", f"one of {', '.join(admin.bundles.PLATFORMS)}"
            )
    with open_context(ctx, api_url=api_url) as context:
        existing_id = shared.lookup.find_worker(context, worker).id if worker is not None else None
        invitation = admin.bundles.bundle(
            context,
            actor(),
            folder,
            platforms=platforms or admin.bundles.PLATFORMS,
            packages=packages,
            name=wanted,
            insecure=insecure,
            ttl=lifetime,
            existing_id=existing_id,
        )
        for note in agents.invitations.notes(context):
            info(ctx, note)
    sys.stdout.write(f"{folder}\n")
    info(
        ctx,
        f"worker {invitation.worker_id}: copy the folder to its host, and run there as root: sh install.sh --offline .",
    )
