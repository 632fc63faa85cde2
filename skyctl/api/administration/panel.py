"""The routes of workers that the panel has had before us: list, look at, drain, remove, the cluster in figures."""

from typing import Any

from skyctl.api.administration import reading
from skyctl.api.operation import ApiRequest, Operation
from skyctl.documents import cli, http
from skyctl.documents.workers import seen_document, worker_details_document
from skyctl.domain.states import WorkerOrder, WorkerStatus
from skyctl.operations.admin import drains, workers
from skyctl.operations.shared.context import Context

MAX_PAGE = 1000


def list_workers(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """List one page of workers."""
    query = request.query
    page = workers.list_workers(
        context,
        statuses=reading.choices(request, "status", WorkerStatus),
        regions=reading.labels(request, "region"),
        pools=reading.labels(request, "pool"),
        order=reading.order(request, WorkerOrder.NAME),
        search=http.text_filter("search", query["search"]) if query.get("search") else None,
        after=http.text_filter("after", query["after"]) if query.get("after") else None,
        limit=http.whole_number("limit", query.get("limit"), 100, 1, MAX_PAGE),
        offset=http.whole_number("offset", query.get("offset"), 0, 0, http.MAX_COUNT),
    )
    pagination = {"total": page.total, "totalIsLeast": page.total_is_least, "next": page.next}
    pagination |= {"limit": page.limit, "offset": page.offset}
    data = [http.worker_document(worker) for worker in page.workers]
    beside = seen_document(page, context.health)
    return 200, {"success": True, "data": data, "pagination": pagination, **beside}


def show_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Show one worker, and how far its drain is."""
    [drain] = drains.progress(context, [request.worker_id])
    now, progress = workers.read_at(context), cli.drain_document(drain)
    return 200, {"success": True, "data": worker_details_document(drain.worker, now, context.health, progress)}


def remove_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Remove a worker without containers; in a dry run only say whether that could be done."""
    if reading.is_true("dryRun", request):
        worker = workers.get(context, request.worker_id)
        workers.check_removable(context, worker)
        return 200, {"success": True, "message": f"Worker {worker.name} can be removed", "data": {"nodeTrouble": None}}
    worker, trouble = workers.remove(context, request.worker_id, request.actor)
    return 200, {"success": True, "message": f"Worker {worker.name} removed", "data": {"nodeTrouble": trouble or None}}


def drain_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Ask for a worker to be emptied."""
    wishes = reading.drain_options(http.parse(request.body) if request.body else {})
    [worker] = drains.drain(context, [request.worker_id], request.actor, wishes)
    return 200, {"success": True, "message": f"Worker {worker.name} is set to drain"}


def undrain_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """End the drain of a worker, which then takes containers again."""
    said, reason = http.parse(request.body) if request.body else {}, http.drain_request(request.body)
    dry_run = reading.flag("dryRun", said)
    worker = drains.undrain(context, request.worker_id, request.actor, reason, dry_run=dry_run)
    name = (worker or workers.get(context, request.worker_id)).name
    state = f"{'can be' if dry_run else 'is'} back in service" if worker else "is not drained: nothing to do"
    return 200, {"success": True, "message": f"Worker {name} {state}", "data": {"changed": worker is not None}}


def stats(context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Show the cluster in figures."""
    return 200, {"success": True, "data": http.stats_document(workers.stats(context), context.health)}


OPERATIONS: dict[str, dict[str, Operation]] = {
    "/api/workers/cluster/status": {"GET": Operation("viewer", stats)},
    "/api/workers/{id}/drain": {"POST": Operation("operator", drain_worker)},
    "/api/workers/{id}/undrain": {"POST": Operation("operator", undrain_worker)},
    "/api/workers/{id}": {"GET": Operation("viewer", show_worker), "DELETE": Operation("admin", remove_worker)},
    "/api/workers": {"GET": Operation("viewer", list_workers)},
}
