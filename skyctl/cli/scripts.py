"""Install scripts and other secrets: where they are printed, and what is said beside them of who may read and who may
use them."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from skyctl import host
from skyctl.cli.context import info
from skyctl.domain.text import quoted

FileOption = Annotated[
    Path | None, typer.Option("--file", help="Write it to this file, which you alone can read, not to stdout.")
]

JOINS = "make a host of theirs the worker"


@contextmanager
def printed(ctx: typer.Context, file: Path | None, harm: str) -> Iterator[None]:
    """Let what the block prints go to the file, where one is named; else say who may read it, and what `harm` these
    could do by it, if any.

    Raises Refused where the file cannot be written, before the block has invited anybody.
    """
    if file is not None:
        with host.private_file.opened("--file", file) as stream, redirect_stdout(stream):
            yield
        return
    yield
    if harm and (word := _readers(harm)):
        info(ctx, word)


def _readers(harm: str) -> str:
    """What is to be said of who reads stdout; nothing where that is a pipe, or a file that is closed to others."""
    if sys.stdout.isatty():
        return f"note: who sees this can {harm}; --file FILE writes it for you alone"
    status = os.fstat(sys.stdout.fileno())
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ""
    path = Path(f"/proc/self/fd/{sys.stdout.fileno()}").readlink()
    return (
        f"warning: {path} has mode {mode:04o}, so others can {harm}: "
        f"chmod 600 {quoted(path)}; --file FILE writes it for you alone"
    )
