"""skyctl workers cordon, uncordon: workers that take nothing new, and keep what they have."""

import typer

from skyctl.cli import desk
from skyctl.cli.arguments import DryRunOption, ReasonOption, WorkersArgument
from skyctl.cli.context import info, say
from skyctl.domain.text import printable, reference


def cordon(
    ctx: typer.Context, workers: WorkersArgument, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Let workers take nothing new, until `uncordon`; what runs there stays.

    Their nodes are paused in the swarm, so that it starts nothing there either: a container that ends there meanwhile
    is not started again before `uncordon`. Several are all looked up before any is changed.
    """

    body = desk.reason(reason)
    with desk.open_desk(ctx) as at:
        records = desk.workers(at, workers)
        if not dry_run:
            at.ask("POST /api/cordons", body=body | {"workers": [worker["id"] for worker in records]})
        for worker in records:
            name = printable(worker["name"])
            if dry_run:
                info(ctx, f"{name} ({worker['id']}) would take nothing new")
            else:
                say(ctx, f"{name} takes nothing new")


def uncordon(
    ctx: typer.Context, workers: WorkersArgument, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Let cordoned workers take something new again.

    One that is drained as well goes on draining. Several are all looked up before any is changed.
    """

    body = desk.reason(reason)
    with desk.open_desk(ctx) as at:
        for worker in desk.workers(at, workers):
            name = printable(worker["name"])
            where = "POST /api/workers/{id}/uncordon"
            if dry_run and worker["cordonedAt"]:
                info(ctx, f"{name} ({worker['id']}) would be cordoned no more")
            elif dry_run or not at.ask(where, body=body, id=worker["id"])["data"]["changed"]:
                info(ctx, f"{name} is not cordoned: nothing to do")
            else:
                again = f"`skyctl workers undrain {reference(worker['name'], worker['id'])}`"
                then = f"still drains, until {again}" if worker["drainRequestedAt"] else "takes new containers again"
                say(ctx, f"{name} {then}")
