"""Install scripts: where they are printed, and what is said beside them of who may read and who may use them."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import host
from skyctl.cli.context import info
from skyctl.domain.text import quoted
from skyctl.operations import agents

if TYPE_CHECKING:
    from skyctl.operations.shared.context import Context

FileOption = Annotated[
    Path | None, typer.Option("--file", help="Write it to this file, which you alone can read, not to stdout.")
]


@contextmanager
def printed(ctx: typer.Context, file: Path | None, *, secret: bool) -> Iterator[None]:
    """Let what the block prints go to the file, where one is named; else, where it is `secret`, say who may read it.

    Raises Refused where the file cannot be written, before the block has invited anybody.
    """
    if file is not None:
        with host.private_file.opened("--file", file) as stream, redirect_stdout(stream):
            yield
        return
    yield
    if secret and (word := _readers()):
        info(ctx, word)


def _readers() -> str:
    """What is to be said of who reads stdout; nothing where that is a pipe, or a file that is closed to others."""
    if sys.stdout.isatty():
        return "note: who sees this can make a host of theirs the worker; --file FILE writes it for you alone"
    status = os.fstat(sys.stdout.fileno())
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ""
    path = Path(f"/proc/self/fd/{sys.stdout.fileno()}").readlink()
    return (
        f"warning: {path} has mode {mode:04o}, so others can make a host of theirs the worker: "
        f"chmod 600 {quoted(path)}; --file FILE writes it for you alone"
    )


def tell(ctx: typer.Context, context: "Context") -> None:
    """Say on stderr what whoever hands the script on must know."""
    url = context.api_url
    if agents.invitations.is_loopback(url):
        info(ctx, f"note: the script reaches the API at {url}, so only from this machine; see SKYCTL_API_URL")
    elif not agents.invitations.is_safe(url):
        info(
            ctx,
            f"warning: {url} is plain HTTP: whoever is on the path reads the token, and a script that is fetched by a "
            "link can be replaced there, so that its host is theirs; the agent takes no upgrades and no new tokens",
        )
    if not agents.release_keys.to_pin(context):
        info(
            ctx,
            "warning: the key of releases is not here, so the script pins none, and its host takes no upgrades: make "
            "scripts on the machine and as the user who has it",
        )
