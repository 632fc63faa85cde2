"""skyctl workers rotate-token, revoke; skyctl secrets ..."""

from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli import desk, views
from skyctl.cli.arguments import WorkerArgument, YesOption
from skyctl.cli.context import actor, confirm, group, info, open_context
from skyctl.domain.text import printable, reference
from skyctl.operations import admin

secrets = typer.Typer(rich_markup_mode=None)
group(secrets)


def rotate_token(ctx: typer.Context, worker: WorkerArgument) -> None:
    """Replace a worker's token: its next heartbeat's answer brings the new one.

    The old one is good until the new one was used, so no heartbeat is lost. Old tokens are replaced by themselves; see
    SKYCTL_TOKEN_ROTATION_DAYS.
    """

    with desk.open_desk(ctx) as at:
        record = at.ask("POST /api/workers/{id}/rotate-token", id=desk.worker(at, worker)["id"])["data"]
    info(ctx, f"{printable(record['name'])}: a new token goes out with its next heartbeat")


def revoke(
    ctx: typer.Context,
    worker: WorkerArgument,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever looks later.")] = None,
    yes: YesOption = False,
) -> None:
    """Revoke a worker's token: its next heartbeat is refused, and it goes offline as any silent worker does.

    Its containers are moved then. `workers install-script --worker WORKER` invites its host anew.
    """

    body = desk.reason(reason)
    with desk.open_desk(ctx) as at:
        record = desk.worker(at, worker)
        confirm(f"Revoke the token of {printable(record['name'])}?", yes=yes)
        at.ask("POST /api/workers/{id}/revoke", body=body, id=record["id"])
    again = f"skyctl workers install-script --worker {reference(record['name'], record['id'])}"
    info(ctx, f"{printable(record['name'])} is revoked; to let its host in again: {again}")


@secrets.command("rotate")
def rotate_secret(
    ctx: typer.Context,
    overlap: Annotated[str, typer.Option(help="How long tokens of the present secret are accepted: 12h, 7d.")] = "7d",
) -> None:
    """Sign tokens by a new secret from now on.

    Every running `skyctl serve` and `skyctl monitor` of this data folder follows at once, and workers get new tokens
    meanwhile.
    """

    length = documents.times.duration("--overlap", overlap)
    with open_context(ctx) as context:
        until, left = admin.tokens.rotate_secret(context, actor(), length)
    end = views.formats.stamp(documents.http.moment(until))
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
    yes: YesOption = False,
) -> None:
    """Refuse every administrator's token that was issued so far, as where one was stolen.

    Every `skyctl serve` does so from its next request on; administrators sign in to the panel again, a minute later, as
    clocks may differ by that. Workers' tokens stay good.
    """

    with desk.open_desk(ctx) as at:
        confirm("End the tokens of all administrators?", yes=yes)
        moment = at.ask("POST /api/tokens/end-administrators")["data"]["issuedBefore"]
    before = views.formats.stamp(moment)
    info(ctx, f"tokens of administrators issued before {before} are refused")
