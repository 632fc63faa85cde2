"""skyctl version: of this program, and of the manager that it asks."""

import sys
from contextlib import closing
from typing import Any

import typer

from skyctl.cli import way
from skyctl.cli.context import Output, OutputOption, emit
from skyctl.domain.errors import ManagerUnavailable, SkyctlError
from skyctl.domain.text import printable
from skyctl.host.api_address import Address
from skyctl.host.api_client import ApiClient


def ours() -> str:
    """Return the version of this program."""
    from importlib.metadata import version  # here, since few commands need it

    return version("skyctl")


def line() -> str:
    """Return the version of this program, as `--version` prints it."""
    return f"skyctl {ours()}\n"


def me(address: Address) -> dict[str, str]:
    """Return what a manager says of who asks: `who`, `role`, and its own `version`. Raises what asking raises, and
    ManagerUnavailable where it does not say these."""
    with closing(ApiClient(address)) as client:
        said = client.ask("GET", "/api/me").get("data")
    if not (isinstance(said, dict) and all(isinstance(said.get(field), str) for field in ("who", "role", "version"))):
        raise ManagerUnavailable(
            f"{address.shown} answers, and that is no answer of skyctl",
            "check the address: is it that of `skyctl serve`?",
        )
    return said


def version(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Print the versions of this program and of the manager that it asks, and which way it takes.

    A manager that does not answer is no failure: that is what is printed then.
    """
    if output.is_table:
        sys.stdout.write(line())
        sys.stdout.flush()
    chosen: way.Way | None = None
    theirs: str | None = None
    try:
        chosen = way.chosen(ctx)
        theirs, trouble = _theirs(chosen)
    except SkyctlError as error:  # of what is set, which may be why somebody asks
        trouble = error.message
    document = {
        "client": ours(),
        "server": theirs,
        "differ": theirs is not None and theirs != ours(),
        "way": chosen.kind.value if chosen else None,
        "context": (chosen.context or None) if chosen else None,
        "url": chosen.address.url if chosen and chosen.address else None,
        "trouble": trouble or None,
    }
    if output.is_table:
        sys.stdout.write("".join(f"{printable(each)}\n" for each in _words(chosen, document)))
    else:
        emit(ctx, output, document, list, [ours()])


def _words(chosen: way.Way | None, document: dict[str, Any]) -> list[str]:
    if chosen and chosen.address is None:
        server = "none is asked"
    elif document["trouble"]:
        server = f"unknown: {document['trouble']}"
    else:
        server = f"{document['server']}{' (differs)' if document['differ'] else ''}"
    return [f"server {server}", *([f"way    {chosen.shown}"] if chosen else [])]


def _theirs(chosen: way.Way) -> tuple[str | None, str]:
    """Return the version of the manager, or why it is not known; neither where none is asked."""
    if chosen.address is None:
        return None, ""
    try:
        return me(chosen.address)["version"], ""
    except SkyctlError as error:
        return None, error.message
