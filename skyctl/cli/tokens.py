"""skyctl workers rotate-token, revoke; skyctl secrets ..."""

from datetime import UTC
from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli.arguments import WorkerArgument
from skyctl.cli.context import actor, confirm, group, info, open_context
from skyctl.domain.text import printable, reference
from skyctl.operations import admin, shared

secrets = typer.Typer(help="The secret that signs tokens.", rich_markup_mode=None)
group(secrets)


def rotate_token(ctx: typer.Context, worker: WorkerArgument) -> None:
    """Replace a worker's token: its next heartbeat's answer brings the new one.

    The old one is good until the new one was used, so no heartbeat is lost. Old tokens are replaced by themselves; see
    SKYCTL_TOKEN_ROTATION_DAYS.
    """

    with open_context(ctx) as context:
        record = admin.tokens.rotate(context, shared.lookup.find_worker(context, worker).id, actor())
    info(ctx, f"{printable(record.name)}: a new token goes out with its next heartbeat")


def revoke(
    ctx: typer.Context,
    worker: WorkerArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever looks later.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Revoke a worker's token: its next heartbeat is refused, and it goes offline as any silent worker does.

    Its containers are moved then. `workers install-script --worker WORKER` invites its host anew.
    """

    why = documents.http.reason(reason, "--reason") if reason is not None else None
    with open_context(ctx) as context:
        record = shared.lookup.find_worker(context, worker)
        confirm(f"Revoke the token of {printable(record.name)}?", yes=yes)
        admin.tokens.revoke(context, record.id, actor(), why)
    again = f"skyctl workers install-script --worker {reference(record.name, record.id)}"
    info(ctx, f"{printable(record.name)} is revoked; to let its host in again: {again}")


@secrets.command("rotate")
def rotate_secret(
    ctx: typer.Context,
    overlap: Annotated[str, typer.Option(help="How long tokens of the present secret are accepted: 12h, 7d.")] = "7d",
) -> None:
    """Sign tokens by a new secret from now on.

    Every running `skyctl serve` and `skyctl monitor` of this data folder follows at once, and workers get new tokens
    meanwhile.
    """

    length = documents.http.duration("--overlap", overlap)
    with open_context(ctx) as context:
        until, left = admin.tokens.rotate_secret(context, actor(), length)
    end = f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    info(ctx, f"tokens are signed by a new secret; those of the old one are accepted until {end}")
    if left:
        who = (
            "1 worker cannot take a new token by itself"
            if left == 1
            else f"{left} workers cannot take a new token by themselves"
        )
        info(ctx, f"note: {who}; until then run a new script on the host: skyctl workers install-script --worker W")


@secrets.command("end-admin-tokens")
def end_admin_tokens(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Refuse every administrator's token that was issued so far, as where one was stolen.

    Every `skyctl serve` does so from its next request on; administrators sign in to the panel again, a minute later, as
    clocks may differ by that. Workers' tokens stay good.
    """

    with open_context(ctx) as context:
        confirm("End the tokens of all administrators?", yes=yes)
        moment = admin.tokens.end_admin_tokens(context, actor())
    info(ctx, f"tokens of administrators issued before {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} are refused")
