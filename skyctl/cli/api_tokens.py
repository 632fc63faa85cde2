"""skyctl tokens ...: tokens of the API."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli import desk, scripts, views
from skyctl.cli.arguments import YesOption
from skyctl.cli.context import Output, OutputOption, confirm, emit, group, info
from skyctl.domain.api_tokens import Role
from skyctl.domain.text import printable

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose or what for; the log says it of each act.")],
    role: Annotated[
        Role, typer.Option(help="viewer sees; operator also changes where containers run; admin does all.")
    ] = Role.VIEWER,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 12h, 90d, or never to end.")] = "90d",
    file: Annotated[
        Path | None, typer.Option("--file", help="Write it to this file, which you alone can read, not to stdout.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a token of the API and print it. It is stored nowhere and cannot be shown again.

    Give it as `Authorization: Bearer TOKEN`.
    """

    named, _ = documents.api_tokens.new_token(("NAME", name), ("--ttl", ttl))
    with desk.open_desk(ctx) as at, scripts.printed(ctx, file, f"act as {role.value}"):
        document = at.ask("POST /api/tokens", body={"name": named, "role": role.value, "ttl": ttl})["data"]
        if output.is_table:
            sys.stdout.write(f"{document['token']}\n")
        else:
            emit(ctx, output, document, list, [document["name"]])


@app.command("list")
def list_tokens(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are revoked or have expired.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the tokens of the API, their roles, and when and from where each was last used."""

    with desk.open_desk(ctx) as at:
        document = at.ask("GET /api/tokens")["data"]

    tokens = [token for token in document["tokens"] if everything or token["state"] == "good"]
    document |= {"tokens": tokens, "total": len(tokens)}
    emit(ctx, output, document, lambda: views.api_tokens.token_table(document), [token["name"] for token in tokens])


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its name or id.")],
    yes: YesOption = False,
) -> None:
    """Revoke a token of the API: its next request is refused."""

    with desk.open_desk(ctx) as at:
        confirm(f"Revoke the token {printable(token)}?", yes=yes)
        revoked = at.ask("DELETE /api/tokens/{reference}", reference=token)["data"]
    info(ctx, f"{printable(revoked['name'])} is revoked")
