"""Bundles for hosts without the internet: everything that an installation needs, in one folder."""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from uuid import UUID

from skyctl.domain.cluster import Actor, Invitation
from skyctl.domain.errors import Refused
from skyctl.host import folders, interpreter
from skyctl.installer import bundle as bundling
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context

PLATFORMS = bundling.PLATFORMS


def bundle(
    context: Context,
    actor: Actor,
    output: Path,
    *,
    platforms: Sequence[str],
    packages: Path | None,
    name: str | None,
    insecure: bool,
    ttl: timedelta,
    existing_id: UUID | None,
) -> Invitation:
    """Make the folder, mode 0700, and invite the worker whose script is in it; where that fails, nothing is left.

    Raises Refused where the folder exists already, or its parent does not, and what `collect` and
    `invitations.generate_script` raise.
    """
    if output.exists():
        raise Refused(f"--output: {output} is there already", "name a folder that is to be made")
    if not output.parent.is_dir():
        raise Refused(f"--output: there is no folder {output.parent}", "make it first")
    folders.open_folder(output.parent).__exit__()  # nobody else may put a folder in the place of the one made here
    invitations.check_transport(context, insecure=insecure)
    half = Path(mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        bundling.collect(half, platforms, packages, interpreter.command("pip"))
        invitation, script = invitations.generate_script(
            context, actor, name, insecure=insecure, ttl=ttl, existing_id=existing_id
        )
        bundling.seal(half, script)
        half.rename(output)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return invitation
