"""Bundles for hosts without the internet: everything that an installation needs, in one folder."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
PREFIX = ".skyctl-bundle."
HALF = re.compile(r"\.skyctl-bundle\.[a-z0-9_]{8}")


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
    invitations.check_transport(context, insecure=insecure)
    with _half(output.parent) as half:
        bundling.collect(half, platforms, packages, interpreter.command("pip"))
        invitation, script = invitations.generate_script(
            context, actor, name, insecure=insecure, ttl=ttl, existing_id=existing_id
        )
        bundling.seal(half, script)
        half.rename(output)
    return invitation


@contextmanager
def _half(parent: Path) -> Iterator[Path]:
    """A folder beside the one that is to be made, for the block; those that killed processes left are removed first,
    since there are tokens in them."""
    with folders.open_folder(parent) as beside:  # where nobody else may put another in its place
        for path in list(folders.link(beside.number).iterdir()):
            if HALF.fullmatch(path.name) and any(path.iterdir()):  # an empty one may have been made just now
                _remove_left(beside, path.name)
        half = Path(mkdtemp(prefix=PREFIX, dir=parent))
        try:
            with _locked(beside, half.name):
                yield half
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _remove_left(beside: folders.Folder, name: str) -> None:
    with suppress(OSError, Refused), _locked(beside, name):
        beside.remove_folder(name)


@contextmanager
def _locked(beside: folders.Folder, name: str) -> Iterator[None]:
    """Hold the lock on a folder, which the kernel drops with this process. Raises BlockingIOError where it is held."""
    number = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=beside.number)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)
