"""skyctl policy ..."""

import sys
from typing import Annotated

import typer

from skyctl.cli import desk, views
from skyctl.cli.arguments import complete_organization
from skyctl.cli.context import Output, OutputOption, emit, group
from skyctl.domain.states import MigrationPolicy
from skyctl.domain.text import printable

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("get")
def get(
    ctx: typer.Context,
    organization: Annotated[
        str | None,
        typer.Argument(metavar="ORG", help="Slug or id; without it, all.", autocompletion=complete_organization),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the policies: automatic moves containers, manual asks before it does, none leaves them."""

    with desk.open_desk(ctx) as at:
        if organization is None:
            document = at.ask("GET /api/organizations")["data"]
            rows = document["organizations"]
        else:
            document = at.ask("GET /api/organizations/{reference}", reference=organization)["data"]
            rows = [document]

    names = [entry["slug"] for entry in rows]
    emit(ctx, output, document, lambda: views.workloads.policy_table(rows), names)


@app.command("set")
def set_policy(
    ctx: typer.Context,
    organization: Annotated[
        str, typer.Argument(metavar="ORG", help="Slug or id.", autocompletion=complete_organization)
    ],
    policy: Annotated[
        MigrationPolicy, typer.Argument(metavar="POLICY", help="What is to happen: automatic, manual or none.")
    ],
) -> None:
    """Set the policy of an organization, from the next failure of a worker on."""

    where, body = "PUT /api/organizations/{reference}/policy", {"policy": policy.value}
    with desk.open_desk(ctx) as at:
        changed = at.ask(where, body=body, reference=organization)["data"]
    sys.stdout.write(f"{printable(changed['slug'])}: {policy.value}\n")
