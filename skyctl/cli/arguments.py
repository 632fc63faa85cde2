"""Arguments and options that several commands have, and how their names are completed."""

from typing import Annotated

import typer

from skyctl import documents, host
from skyctl.cli import desk, listing, way
from skyctl.cli.context import settings
from skyctl.domain.errors import SkyctlError, ValidationError
from skyctl.domain.text import is_plain


def complete_worker(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the workers that begin with `incomplete`, by name, or by id where the name is odd."""
    return _completed(ctx, "workers", incomplete)


def complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the services that begin with `incomplete`, by name, or by id where the name is odd."""
    return _completed(ctx, "services", incomplete)


def complete_organization(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the organizations that begin with `incomplete`, by slug, or by id where the slug is odd."""
    return _completed(ctx, "organizations", incomplete)


def _completed(ctx: typer.Context, kind: str, incomplete: str) -> list[str]:
    """Return references that need no quoting; none where nobody answers. The embedded database is not started for
    them."""
    try:
        if way.address(ctx) is None:
            chosen = settings(ctx)
            if chosen.database_url is None and not host.postgres.EmbeddedPostgres(chosen.data_dir).answers():
                return []
        with desk.open_desk(ctx) as at:
            found = at.ask("GET /api/references/{kind}", {"prefix": incomplete}, kind=kind)["data"]["references"]
            return [candidate for candidate in found if is_plain(candidate)]
    except (SkyctlError, OSError):
        return []


def invited_name(name: str | None, worker: str | None) -> str | None:
    """Return the name that an invited worker is to have; None leaves it to its host.

    Raises ValidationError where `worker` names one that has a name already.
    """

    if worker is not None and name is not None:
        raise ValidationError("--worker and --name exclude each other", "the worker keeps its name")
    return documents.http.worker_name(name, "--name") if name is not None else None


LOOPBACK = "127.0.0.1"
MetricsPort = Annotated[
    int | None,
    typer.Option("--metrics-port", min=1, max=65_535, help="Answer Prometheus on this port, without a token."),
]
MetricsHost = Annotated[str, typer.Option("--metrics-host", help="Address of that port.")]
WorkerArgument = Annotated[
    str,
    typer.Argument(
        metavar="WORKER", help="An id, a unique beginning of one, or a name.", autocompletion=complete_worker
    ),
]
WorkersArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="WORKER",
        help="Ids, unique beginnings of them, or names.",
        autocompletion=complete_worker,
    ),
]
ServiceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE", help="An id, a unique beginning of one, or a name.", autocompletion=complete_service
    ),
]
WorkersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--worker",
        metavar="WORKER",
        help=f"Only what is there; {listing.SEVERAL}.",
        autocompletion=complete_worker,
    ),
]
OrganizationOption = Annotated[
    str | None,
    typer.Option("--org", metavar="ORG", help="Slug or id of an organization.", autocompletion=complete_organization),
]
OrganizationsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--org",
        metavar="ORG",
        help=f"Only of this organization, by slug or id; {listing.SEVERAL}.",
        autocompletion=complete_organization,
    ),
]
ReasonOption = Annotated[str | None, typer.Option(help="Why; events and `workers show` tell it.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed without a terminal.")]
CpuOption = Annotated[str | None, typer.Option(metavar="CORES", help="Most cores, such as 0.5 or 500m.")]
MemoryOption = Annotated[str | None, typer.Option(metavar="SIZE", help="Most memory, such as 512M, 256Mi or 2G.")]
DiskOption = Annotated[str | None, typer.Option(metavar="SIZE", help="Disk that is reserved, such as 10G.")]
