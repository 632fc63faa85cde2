"""skyctl workers drain, undrain, remove: emptying workers, and watching it."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents, domain
from skyctl.cli import follow, views
from skyctl.cli.arguments import DryRunOption, ReasonOption, WorkerArgument, WorkersArgument, YesOption
from skyctl.cli.context import Output, OutputOption, actor, confirm, console, emit, info, open_context, options
from skyctl.domain.errors import ExitCode, ValidationError
from skyctl.domain.text import printable, quoted, reference
from skyctl.operations import admin, shared

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from skyctl.domain.cluster import Worker
    from skyctl.domain.workloads import DrainProgress
    from skyctl.operations.shared.context import Context


DeadlineOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Move nothing more after that time, such as 90s, 30m, 2h or 1d.")
]
TimeoutOption = Annotated[str | None, typer.Option(metavar="TIME", help="Wait no longer than that; the drain goes on.")]


def drain(
    ctx: typer.Context,
    workers: WorkersArgument,
    plan: Annotated[bool, typer.Option("--plan", help="Only show where each container would go.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is over; Ctrl-C cancels nothing.")] = False,
    timeout: TimeoutOption = None,
    deadline: DeadlineOption = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="At most so many containers of a worker on their way.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="At the deadline, stop what is left.")] = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Empty workers, until `undrain`.

    They take nothing new, and the monitor moves their containers off. Several are all looked up before any is changed.
    Given again, it goes on as it is now wished. Exit code with --plan: 4 where a container finds no place; with --wait:
    7 where containers are left or nobody can say whether any are, 6 after --timeout.
    """

    if force and deadline is None:
        raise ValidationError("--force needs --deadline", "such as --deadline 1h --force: what is left then is stopped")
    if plan and wait:
        raise ValidationError("--plan changes nothing, so that there is nothing to --wait for", "give one of them")
    if timeout is not None and not wait:
        raise ValidationError("--timeout needs --wait", "without it, nothing is waited for")
    seconds = None if timeout is None else documents.http.duration("--timeout", timeout).total_seconds()
    within = None if deadline is None else documents.http.duration("--deadline", deadline)
    drain_options = domain.workloads.DrainOptions(
        None if reason is None else documents.http.reason(reason, "--reason"), within, max_parallel, force
    )
    with open_context(ctx) as context:
        records = shared.lookup.find_workers(context, workers)
        ids = [worker.id for worker in records]
        if plan:
            _show_plan(ctx, context, ids, output)
            return
        if dry_run:
            for worker in records:
                info(ctx, f"{printable(worker.name)} ({worker.id}) would drain")
            return
        admin.drains.drain(context, ids, actor(), drain_options)
        if output is Output.TABLE and not options(ctx).quiet:
            sys.stdout.write("".join(f"{printable(worker.name)} drains\n" for worker in records))
            sys.stdout.flush()
        _note_no_monitor(ctx, context)
        drains = _watch(ctx, context, records, seconds) if wait else admin.drains.progress(context, ids)
    _report(ctx, drains, output, waited=wait)
    if wait and not all(drain.is_empty for drain in drains):
        raise typer.Exit(ExitCode.PARTLY_DONE)


def undrain(
    ctx: typer.Context, workers: WorkersArgument, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Take drained workers back into service.

    What has not started stays. Several are all looked up before any is changed.
    """

    why = None if reason is None else documents.http.reason(reason, "--reason")
    with open_context(ctx) as context:
        for worker in shared.lookup.find_workers(context, workers):
            if dry_run:
                info(ctx, f"{printable(worker.name)} ({worker.id}) would be back in service")
                continue
            admin.drains.undrain(context, worker.id, actor(), why)
            if not options(ctx).quiet:
                sys.stdout.write(f"{printable(worker.name)} is back in service\n")


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
    seconds = None if timeout is None else documents.http.duration("--timeout", timeout).total_seconds()
    within = None if deadline is None else documents.http.duration("--deadline", deadline)
    with open_context(ctx) as context:
        record = shared.lookup.find_worker(context, worker)
        name = printable(record.name)
        if not drain or dry_run:
            if not drain:
                admin.workers.check_removable(context, record)
            if dry_run:
                info(ctx, f"{name} ({record.id}) would be {'drained and ' if drain else ''}removed")
                return
        confirm(f"{'Drain and remove' if drain else 'Remove'} {name} ({record.id}, {record.status.value})?", yes=yes)
        if drain:
            _empty(ctx, context, record, within, seconds)
        _, still_there = admin.workers.remove(context, record.id, actor())
    if not options(ctx).quiet:
        sys.stdout.write(f"{name} removed\n")
    if still_there:
        see = f"see `docker node rm {quoted(record.swarm_node_id)}`"
        info(ctx, f"note: its node is still in the swarm: {printable(still_there)}; {see}")


def _show_plan(ctx: typer.Context, context: "Context", ids: "Sequence[UUID]", output: Output) -> None:

    planned = admin.drains.plan(context, ids)

    document = {"containers": [documents.cli.planned_document(container) for container in planned]}
    emit(
        ctx,
        output,
        document,
        lambda: views.workloads.plan_table(planned),
        [container.service_name for container in planned],
    )
    if any(container.target is None for container in planned):
        raise typer.Exit(ExitCode.REFUSED)


def _empty(
    ctx: typer.Context, context: "Context", worker: "Worker", deadline: "timedelta | None", seconds: float | None
) -> None:
    """Drain a worker that is to be removed, and wait for it. Raises Exit where containers are left."""

    admin.drains.drain(context, [worker.id], actor(), domain.workloads.DrainOptions("to be removed", deadline))
    _note_no_monitor(ctx, context)
    drains = _watch(ctx, context, [worker], seconds)
    _report(ctx, drains, Output.TABLE, waited=True)
    if any(drain.has_left for drain in drains):
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _note_no_monitor(ctx: typer.Context, context: "Context") -> None:

    page = admin.workers.list_workers(context, limit=1)
    if note := views.workers.monitor_footnote(page, context.health.heartbeat_interval, "nothing is moved"):
        info(ctx, note)


def _watch(
    ctx: typer.Context, context: "Context", workers: "Sequence[Worker]", seconds: float | None
) -> "Sequence[DrainProgress]":
    """Show how far the drains are until all are over. Return their last progress."""
    ids = [worker.id for worker in workers]
    drains: list[DrainProgress] = []
    typed = _typed(workers)
    with views.drains.progress(console(ctx, stderr=True), quiet=options(ctx).quiet) as show:

        def is_over() -> bool:
            drains[:] = admin.drains.progress(context, ids)
            show(drains)
            return all(drain.is_over for drain in drains)

        again = f"watch it again with `skyctl workers drain {typed} --wait`"
        cancel = f"cancel it with `skyctl workers undrain {typed}`"
        follow.watch(ctx, context, is_over, seconds, f"the drain goes on; {again}, {cancel}")
    return drains


def _report(ctx: typer.Context, drains: "Sequence[DrainProgress]", output: Output, *, waited: bool) -> None:
    """Print the outcome of the drains, or what there is to be waited for."""

    if output is not Output.TABLE and output is not Output.WIDE:
        document = {"drains": [documents.cli.drain_document(drain) for drain in drains]}
        emit(ctx, output, document, list, [drain.worker.name for drain in drains])
    elif waited:
        for drain in drains:
            name, left = printable(drain.worker.name), len(drain.left) + drain.others_count
            stay = f"{left} container{'s stay' if left != 1 else ' stays'} there, running"
            theirs = [f"not ours: {', '.join(drain.others)}"] if drain.others else []
            what = printable("; ".join([", ".join(drain.left)] * bool(drain.left) + theirs))
            moved = f"{'nothing of ours is left' if drain.unknown else 'empty'}, {drain.moved} moved"
            outcome = f"{stay}: {what}" if left else moved
            outcome += f"; what else runs there nobody can say: {printable(drain.unknown)}" * bool(drain.unknown)
            why = " (the drain was cancelled)" if drain.worker.drain_requested_at is None else ""
            sys.stdout.write(f"{name}: {outcome}{why}\n")
    elif todo := sum(drain.total - drain.moved for drain in drains):
        typed = _typed([drain.worker for drain in drains])
        noun = "container" if todo == 1 else "containers"
        info(ctx, f"{todo} {noun} to be moved: watch it with `skyctl workers drain {typed} --wait`")


def _typed(workers: "Sequence[Worker]") -> str:
    return " ".join(reference(worker.name, worker.id) for worker in workers)
