"""skyctl policy ..."""

import sys
from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.arguments import complete_organization
from skyctl.cli.context import Output, OutputOption, actor, emit, group, open_context
from skyctl.domain.states import MigrationPolicy
from skyctl.domain.text import printable
from skyctl.operations import admin

app = typer.Typer(help="What each organization wants when a worker fails.", rich_markup_mode=None)
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

    with open_context(ctx) as context:
        is_single = organization is not None
        organizations = (
            [admin.services.organization(context, organization)] if is_single else admin.migrations.policies(context)
        )

    rows = [documents.cli.organization_document(entry) for entry in organizations]
    document = rows[0] if is_single else {"organizations": rows, "total": len(rows)}
    emit(
        ctx,
        output,
        document,
        lambda: views.workloads.policy_table(organizations),
        [entry.slug for entry in organizations],
    )


@app.command("set")
def set_policy(
    ctx: typer.Context,
    organization: Annotated[
        str, typer.Argument(metavar="ORG", help="Slug or id.", autocompletion=complete_organization)
    ],
    policy: Annotated[MigrationPolicy, typer.Argument(help="What is to happen.")],
) -> None:
    """Set the policy of an organization, from the next failure of a worker on."""

    with open_context(ctx) as context:
        record = admin.services.organization(context, organization)
        admin.migrations.set_policy(context, record, policy, actor())
    sys.stdout.write(f"{printable(record.slug)}: {policy.value}\n")
