"""skyctl workers drain, undrain, remove: emptying workers, and watching it."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import desk, follow, views
from skyctl.cli.arguments import DryRunOption, ReasonOption, WorkerArgument, WorkersArgument, YesOption
from skyctl.cli.context import Output, OutputOption, confirm, console, emit, info, options, say
from skyctl.domain.errors import EngineUnavailable, ExitCode, SkyctlError, ValidationError
from skyctl.domain.text import printable, quoted, reference

if TYPE_CHECKING:
    from skyctl.documents.http import Document

DeadlineOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Move nothing more after that time, such as 90s, 1h30m or 2d.")
]
TimeoutOption = Annotated[str | None, typer.Option(metavar="TIME", help="Wait no longer than that; the drain goes on.")]


def drain(
    ctx: typer.Context,
    workers: WorkersArgument,
    plan: Annotated[bool, typer.Option("--plan", help="Only show how each service would move, and where.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is over; Ctrl-C cancels nothing.")] = False,
    timeout: TimeoutOption = None,
    deadline: DeadlineOption = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="At most so many containers of a worker on their way.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="At the deadline, stop what is left.")] = False,
    keep_global: Annotated[
        bool, typer.Option("--keep-global", help="Leave what runs on every node, which else stops at the end.")
    ] = False,
    move_local_data: Annotated[
        bool, typer.Option("--move-local-data", help="Move what keeps data there too: it starts empty elsewhere.")
    ] = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Empty workers, until `undrain`.

    They take nothing new, and the monitor moves their containers off, whoever deployed them. Several are all looked up
    before any is changed. Given again, it goes on as it is now wished. Exit code with --plan: 4 where a container would
    be left; with --wait: 7 where containers are left or nobody can say whether any are, 6 after --timeout.
    """

    _check(force=force and deadline is None, plan=plan and wait, timeout=timeout is not None and not wait)
    seconds = None if timeout is None else documents.times.duration("--timeout", timeout).total_seconds()
    if deadline is not None:
        documents.times.duration("--deadline", deadline)
    what_moves = {"keepGlobal": keep_global, "moveLocalData": move_local_data}
    body = desk.reason(reason) | what_moves | {"force": force}
    body |= {} if deadline is None else {"deadline": deadline}
    body |= {} if max_parallel is None else {"maxParallel": max_parallel}
    with desk.open_desk(ctx) as at:
        records = desk.workers(at, workers)
        if plan:
            _show_plan(ctx, at, {"workers": [worker["id"] for worker in records], **what_moves}, output)
            return
        if dry_run:
            for worker in records:
                info(ctx, f"{printable(worker['name'])} ({worker['id']}) would drain")
            return
        at.ask("POST /api/drains", body=body | {"workers": [worker["id"] for worker in records]})
        if output is Output.TABLE:
            for worker in records:
                say(ctx, f"{printable(worker['name'])} drains")
            sys.stdout.flush()
        _warn_of_no_monitor(ctx, at)
        drains = _watch(ctx, at, records, seconds) if wait else _progress(at, records)
    _report(ctx, drains, output, waited=wait)
    if wait and not all(drain["empty"] for drain in drains):
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _check(*, force: bool, plan: bool, timeout: bool) -> None:
    """Refuse options of which each lacks the one that gives it its sense."""
    if force:
        raise ValidationError("--force needs --deadline", "such as --deadline 1h --force: what is left then is stopped")
    if plan:
        raise ValidationError("--plan changes nothing, so that there is nothing to --wait for", "give one of them")
    if timeout:
        raise ValidationError("--timeout needs --wait", "without it, nothing is waited for")


def undrain(
    ctx: typer.Context, workers: WorkersArgument, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Take drained workers back into service.

    What has not started stays. Several are all looked up before any is changed.
    """

    body = desk.reason(reason) | {"dryRun": dry_run}
    with desk.open_desk(ctx) as at:
        for worker in desk.workers(at, workers):
            name, undrained = printable(worker["name"]), f"skyctl workers uncordon {_typed([worker])}"
            then = f"still cordoned, until `{undrained}`" if worker["cordonedAt"] else "back in service"
            if not at.ask("POST /api/workers/{id}/undrain", body=body, id=worker["id"])["data"]["changed"]:
                info(ctx, f"{name} is not drained: nothing to do")
            elif dry_run:
                info(ctx, f"{name} ({worker['id']}) would be {then}")
            else:
                say(ctx, f"{name} is {then}")


def remove(
    ctx: typer.Context,
    worker: WorkerArgument,
    drain: Annotated[bool, typer.Option("--drain", help="Empty it first, and wait for that.")] = False,
    deadline: DeadlineOption = None,
    timeout: TimeoutOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Remove an empty worker, and its node from the swarm.

    Its token is refused from then on.
    """

    if (deadline or timeout) and not drain:
        raise ValidationError("--deadline and --timeout need --drain", "without it, nothing is moved")
    seconds = None if timeout is None else documents.times.duration("--timeout", timeout).total_seconds()
    if deadline is not None:
        documents.times.duration("--deadline", deadline)
    with desk.open_desk(ctx) as at:
        record = desk.worker(at, worker)
        name, shown = printable(record["name"]), f"{printable(record['name'])} ({record['id']}"
        if not drain:
            at.ask("DELETE /api/workers/{id}", {"dryRun": "true"}, id=record["id"])
        if dry_run:
            info(ctx, f"{shown}) would be {'drained and ' if drain else ''}removed")
            return
        confirm(f"{'Drain and remove' if drain else 'Remove'} {shown}, {record['status']})?", yes=yes)
        if drain:
            _empty(ctx, at, record, deadline, seconds)
        still_there = at.ask("DELETE /api/workers/{id}", id=record["id"])["data"]["nodeTrouble"]
    say(ctx, f"{name} removed")
    if still_there:
        see = f"see `docker node rm {quoted(record['swarmNodeId'])}`"
        info(ctx, f"note: its node is still in the swarm: {printable(still_there)}; {see}")


def _show_plan(ctx: typer.Context, at: desk.Desk, wanted: "Document", output: Output) -> None:
    document = at.ask("POST /api/drains/plan", body=wanted)["data"]
    names = [container["service"] for container in document["containers"]]
    emit(ctx, output, document, lambda: views.workloads.plan_table(document), names)
    if any(container["left"] for container in document["containers"]):
        raise typer.Exit(ExitCode.REFUSED)


def _empty(ctx: typer.Context, at: desk.Desk, worker: "Document", deadline: str | None, seconds: float | None) -> None:
    """Drain a worker that is to be removed, and wait for it. Raises Exit where containers are left."""

    body = {"reason": "to be removed"} | ({} if deadline is None else {"deadline": deadline})
    at.ask("POST /api/workers/{id}/drain", body=body, id=worker["id"])
    _warn_of_no_monitor(ctx, at)
    [progress] = _watch(ctx, at, [worker], seconds)
    _report(ctx, [progress], Output.TABLE, waited=True)
    is_left = progress["left"] or progress["othersCount"] or not progress["over"]
    if is_left or progress["requestedAt"] is None:
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _warn_of_no_monitor(ctx: typer.Context, at: desk.Desk) -> None:
    if warning := views.workers.monitor_warning(desk.monitor(at), "nothing is moved"):
        info(ctx, warning)


def _progress(at: desk.Desk, workers: "Sequence[Document]") -> list["Document"]:
    drains: list[Document] = []
    for first in range(0, len(workers), desk.MOST_NAMED):
        named = ",".join(worker["id"] for worker in workers[first : first + desk.MOST_NAMED])
        drains += at.ask("GET /api/drains", {"worker": named})["data"]["drains"]
    return drains


def _still_there(at: desk.Desk, drain: "Document") -> "Document":
    try:
        there: Document = at.ask("GET /api/workers/{id}/still-there", id=drain["workerId"])["data"]
    except SkyctlError as error:
        if error.code != EngineUnavailable.code:
            raise
        return {"left": [], "others": [], "unknown": error.message}
    return there


def _watch(
    ctx: typer.Context, at: desk.Desk, workers: "Sequence[Document]", seconds: float | None
) -> "Sequence[Document]":
    """Show how far the drains are until all are over. Return their last progress."""
    drains: list[Document] = []
    typed, look = _typed(workers), partial(_still_there, at)

    with views.drains.progress(console(ctx, stderr=True), look, quiet=options(ctx).quiet) as show:

        def is_over() -> bool:
            drains[:] = _progress(at, workers)
            show(drains)
            return all(drain["over"] for drain in drains)

        again = f"watch it again with `skyctl workers drain {typed} --wait`"
        cancel = f"cancel it with `skyctl workers undrain {typed}`"
        try:
            follow.watch(ctx, at, is_over, seconds, f"the drain goes on; {again}, {cancel}")
        except typer.Exit:
            with suppress(SkyctlError):
                for drain in drains:
                    if not drain["over"] and (there := views.drains.there_text(look(drain))):
                        info(ctx, f"{printable(drain['workerName'])}: still there: {there}")
            raise
    return drains


def _report(ctx: typer.Context, drains: "Sequence[Document]", output: Output, *, waited: bool) -> None:
    """Print the outcome of the drains, or what there is to be waited for."""

    if not output.is_table:
        emit(ctx, output, {"drains": drains}, list, [drain["workerName"] for drain in drains])
    elif waited:
        sys.stdout.write("".join(f"{views.drains.outcome_text(drain)}\n" for drain in drains))
    elif todo := sum(views.formats.drain_total(drain) - drain["moved"] for drain in drains):
        noun = "container" if todo == 1 else "containers"
        typed = _typed([{"name": drain["workerName"], "id": drain["workerId"]} for drain in drains])
        info(ctx, f"{todo} {noun} to be moved: watch it with `skyctl workers drain {typed} --wait`")


def _typed(workers: "Sequence[Document]") -> str:
    return " ".join(reference(worker["name"], worker["id"]) for worker in workers)
