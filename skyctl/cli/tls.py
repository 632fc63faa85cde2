"""skyctl tls ..."""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from skyctl import documents, host
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, actor, emit, group, info, open_context, settings
from skyctl.domain.errors import Refused
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.host.certificates import Certificates

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("init")
def init(
    ctx: typer.Context,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="A name or address by which hosts reach this manager; repeatable."),
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Make the server's certificate anew.")] = False,
) -> None:
    """Make an authority of our own and a certificate for `skyctl serve`, which uses it by itself.

    It is for this machine's names and addresses, the host of SKYCTL_API_URL, and what --host names. What is there
    already stays; new names make a new certificate of the same authority, which hosts trust already. `skyctl serve`
    renews it in time.
    """
    chosen = settings(ctx)
    ours = host.certificates.Certificates(chosen.data_dir)
    reached = urlsplit(chosen.api_url).hostname or "localhost"
    named = [host.certificates.checked_name(name) for name in (*(hosts or ()), reached)]
    made = admin.certificates.initialize(ours, [*named, *host.certificates.names_of_this_machine()], renew=renew)
    if made:
        _note(ctx, ours)
    server = ours.inspect()[-1]
    outcome = f"made {server.path} for" if made else f"{server.path} is there already, and names all of this:"
    info(ctx, f"{outcome} {', '.join(server.names)}; good until {server.ends_at:%Y-%m-%d}")
    if made and not chosen.api_url.startswith("https://"):
        info(ctx, f"set SKYCTL_API_URL to where hosts reach it, such as https://{named[0]}:8642")


def _note(ctx: typer.Context, ours: "Certificates") -> None:
    """Write the event, unless the database is one of ours that was never used."""
    chosen = settings(ctx)
    if not (chosen.database_url or host.postgres.EmbeddedPostgres(chosen.data_dir).is_made()):
        return
    with open_context(ctx) as context:
        if not admin.certificates.note(context, ours, actor()):
            info(ctx, "note: the log of events could not take this, since the database is away or has no schema yet")


@app.command("show")
def show_certificates(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show the authority and the server's certificate: names, until when, fingerprint."""
    chosen = settings(ctx)
    certificates = host.certificates.Certificates(chosen.data_dir).inspect()
    if not certificates:
        raise Refused(f"there is no certificate in {chosen.data_dir / 'tls'}", "make one: skyctl tls init")

    document = documents.installation.certificates_document(certificates)
    emit(
        ctx,
        output,
        document,
        lambda: views.certificates.certificate_details(document),
        [certificate.role for certificate in certificates],
    )
