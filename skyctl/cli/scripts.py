"""What is said beside an install script: where it cannot be used, and whom its host would trust."""

from typing import TYPE_CHECKING

import typer

from skyctl.cli.context import info
from skyctl.operations import agents

if TYPE_CHECKING:
    from skyctl.operations.shared.context import Context


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
