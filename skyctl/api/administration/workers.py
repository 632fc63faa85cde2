"""Workers over HTTP, beyond what the panel asks for: why, drains, tokens, labels, the cluster."""

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, parameter
from skyctl.api.administration.schemas import FLAG, MAYBE_TEXT, OBJECT, many
from skyctl.api.administration.services import told
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, NAME, TEXT, TIME, Document, json_object, reference
from skyctl.documents import cli, http, times
from skyctl.documents.http import LONGEST_REASON
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Worker
from skyctl.operations.admin import (
    cordons,
    diagnosis,
    drains,
    migrations,
    overview,
    services,
    silences,
    tokens,
    workers,
)
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context

MOST_CONTAINERS = 1000
ROWS_OF_OVERVIEW, MOST_OF_OVERVIEW = 50, 1000
LABEL: Document = {"type": "string", "maxLength": 255, "description": "empty for none"}


def named(context: Context, request: ApiRequest) -> Document:
    """Look up a worker by what people call it."""
    return http.worker_document(lookup.find_worker(context, reading.reference(request)))


def why(context: Context, request: ApiRequest) -> Document:
    """Tell why a worker has its status."""
    diagnosed = diagnosis.diagnose(context, request.worker_id)
    containers = services.list_services(context, worker_ids=[request.worker_id], limit=MOST_CONTAINERS).services
    page = migrations.list_migrations(context, worker_ids=[request.worker_id], limit=MOST_CONTAINERS)
    moves = [migration for migration in page.migrations if migration.finished_at is None]
    document = cli.diagnosis_document(diagnosed, containers, moves)
    return document | {"containers": told(context, request, *document["containers"])}


def drain(context: Context, request: ApiRequest) -> Document:
    """Tell how far a drain is."""
    [found] = drains.progress(context, [request.worker_id])
    return cli.drain_document(found)


def drain_several(context: Context, request: ApiRequest) -> Document:
    """Ask for workers to be emptied: all of them from the same moment on, or none."""
    said = reading.body(request, "workers", "reason", "deadline", "maxParallel", "force", "keepGlobal", "moveLocalData")
    ids = [worker.id for worker in lookup.find_workers(context, reading.texts(said, "workers"))]
    drained = drains.drain(context, ids, request.actor, reading.drain_options(said))
    return {"workers": [http.worker_document(worker) for worker in drained]}


def progress(context: Context, request: ApiRequest) -> Document:
    """Tell how far the drains of workers are."""
    ids = reading.worker_ids(context, request)
    return {"drains": [cli.drain_document(each) for each in drains.progress(context, ids)]}


def cordon_several(context: Context, request: ApiRequest) -> Document:
    """Let workers take nothing new: all of them from the same moment on, or none."""
    said = reading.body(request, "workers", "reason")
    ids = [worker.id for worker in lookup.find_workers(context, reading.texts(said, "workers"))]
    reason = http.reason(said["reason"]) if "reason" in said else None
    cordoned = cordons.cordon(context, ids, request.actor, reason)
    return {"workers": [http.worker_document(worker) for worker in cordoned]}


def label(context: Context, request: ApiRequest) -> Document:
    """Set the region or the pool of a worker."""
    said = reading.body(request, "region", "pool")
    labels = {field: http.label(field, reading.text(said, field)) for field in said}
    return http.worker_document(workers.label(context, request.worker_id, request.actor, labels))


def rotate(context: Context, request: ApiRequest) -> Document:
    """Have a worker's token replaced."""
    return http.worker_document(tokens.rotate(context, request.worker_id, request.actor))


def revoke(context: Context, request: ApiRequest) -> Document:
    """Revoke a worker's token."""
    tokens.revoke(context, request.worker_id, request.actor, _reason(request))
    return http.worker_document(workers.get(context, request.worker_id))


def cordon(context: Context, request: ApiRequest) -> Document:
    """Let a worker take nothing new."""
    [found] = cordons.cordon(context, [request.worker_id], request.actor, _reason(request))
    return http.worker_document(found)


def uncordon(context: Context, request: ApiRequest) -> Document:
    """Let a worker take something new again."""
    return _changed(context, request, cordons.uncordon(context, request.worker_id, request.actor, _reason(request)))


def silence(context: Context, request: ApiRequest) -> Document:
    """Hold alerts of a worker's health back from the channels."""
    length = times.duration("for", reading.text(reading.body(request, "for", "reason"), "for"))
    [found] = silences.silence(context, [request.worker_id], request.actor, length, _reason(request, "for"))
    return http.worker_document(found)


def unsilence(context: Context, request: ApiRequest) -> Document:
    """Send alerts of a worker's health again."""
    reading.body(request)
    return _changed(context, request, silences.unsilence(context, request.worker_id, request.actor))


def _changed(context: Context, request: ApiRequest, found: Worker | None) -> Document:
    """Return a worker, and whether it was changed: where it was not, none was found."""
    worker = found or workers.get(context, request.worker_id)
    return http.worker_document(worker) | {"changed": found is not None}


def _reason(request: ApiRequest, *others: str) -> str | None:
    said = reading.body(request, *others, "reason")
    return http.reason(said["reason"]) if "reason" in said else None


def cluster(context: Context, request: ApiRequest) -> Document:
    """Show the cluster at one moment."""
    rows = http.whole_number("rows", request.query.get("rows"), ROWS_OF_OVERVIEW, 1, MOST_OF_OVERVIEW)
    return cli.overview_document(overview.overview(context, rows))


def stats(context: Context, _request: ApiRequest) -> Document:
    """Show the cluster in figures, as it is now."""
    return http.stats_document(workers.stats(context), context.health)


OF_WORKER = "/api/workers/{id}"
WORKERS: Document = many(TEXT) | {"maxItems": reading.MOST_NAMED, "description": reading.REFERENCE}
REASON: Document = NAME | {"maxLength": LONGEST_REASON}
ROUTES = (
    Route(
        "GET",
        "/api/workers/named/{reference}",
        Role.VIEWER,
        "The worker of an id, a unique beginning of one, or a name",
        named,
        reference("Worker"),
    ),
    Route(
        "GET",
        f"{OF_WORKER}/why",
        Role.VIEWER,
        "Why a worker has its status, and why its containers are still there",
        why,
        json_object(
            worker=reference("Worker"),
            verdict=json_object(status=TEXT, reason=TEXT),
            facts=OBJECT,
            wouldChange=many(TEXT),
            containers=many(reference("Service")),
            migrations=many(reference("Migration")),
        ),
    ),
    Route(
        "POST",
        "/api/drains",
        Role.OPERATOR,
        "Ask for workers to be emptied: all of them from the same moment on, or none",
        drain_several,
        json_object(workers=many(reference("Worker"))),
        body=reading.object_of(
            *("reason", "deadline", "maxParallel", "force", "keepGlobal", "moveLocalData"),
            workers=WORKERS,
            reason=REASON,
            deadline=TEXT | {"description": "move nothing more after that time, such as 1h30m"},
            maxParallel=COUNT | {"minimum": 1, "maximum": 10_000},
            force=FLAG,
            keepGlobal=FLAG,
            moveLocalData=FLAG,
        ),
    ),
    Route(
        "GET",
        "/api/drains",
        Role.VIEWER,
        "How far the drains of these workers are",
        progress,
        json_object(drains=many(reference("Drain"))),
        query=(reading.WORKER,),
    ),
    Route(
        "POST",
        "/api/cordons",
        Role.OPERATOR,
        "Let workers take nothing new: all of them from the same moment on, or none",
        cordon_several,
        json_object(workers=many(reference("Worker"))),
        body=reading.object_of("reason", workers=WORKERS, reason=REASON),
    ),
    Route("GET", f"{OF_WORKER}/drain", Role.VIEWER, "How far its drain is", drain, reference("Drain")),
    Route(
        "PATCH",
        OF_WORKER,
        Role.ADMIN,
        "Set its region or its pool",
        label,
        reference("Worker"),
        body=reading.object_of("region", "pool", region=LABEL, pool=LABEL),
    ),
    Route(
        "POST",
        f"{OF_WORKER}/rotate-token",
        Role.ADMIN,
        "Have its token replaced with its next heartbeat",
        rotate,
        reference("Worker"),
        may_refuse=True,
    ),
    Route(
        "POST",
        f"{OF_WORKER}/revoke",
        Role.ADMIN,
        "Revoke its token",
        revoke,
        reference("Worker"),
        body=reading.object_of("reason", reason=REASON),
        may_refuse=True,
    ),
    Route(
        "POST",
        f"{OF_WORKER}/cordon",
        Role.OPERATOR,
        "Let it take nothing new; what is there stays",
        cordon,
        reference("Worker"),
        body=reading.object_of("reason", reason=REASON),
    ),
    Route(
        "POST",
        f"{OF_WORKER}/uncordon",
        Role.OPERATOR,
        "Let it take something new again",
        uncordon,
        reference("Worker"),
        body=reading.object_of("reason", reason=REASON),
    ),
    Route(
        "POST",
        f"{OF_WORKER}/silence",
        Role.OPERATOR,
        "Hold alerts of its health back from the channels for a time",
        silence,
        reference("Worker"),
        body=reading.object_of(
            "reason", **{"for": TEXT | {"description": "how long, such as 30m or 2h"}}, reason=REASON
        ),
    ),
    Route(
        "POST",
        f"{OF_WORKER}/unsilence",
        Role.OPERATOR,
        "Send alerts of its health by the channels again, and those that were held back",
        unsilence,
        reference("Worker"),
    ),
    Route(
        "GET",
        "/api/cluster/stats",
        Role.VIEWER,
        "The cluster in figures, as it is now",
        stats,
        reference("Stats"),
    ),
    Route(
        "GET",
        "/api/cluster",
        Role.VIEWER,
        "The cluster at one moment: figures, the worst workers and the last events, who leads",
        cluster,
        json_object(
            stats=reference("Stats"),
            worst=many(reference("Worker")),
            events=many(reference("Event")),
            monitor=json_object(leader=MAYBE_TEXT, term={"type": ["integer", "null"]}, lastPassAt=TIME, late=FLAG),
            migrations={"type": "object", "additionalProperties": COUNT},
        ),
        query=(
            parameter(
                "rows",
                {"type": "integer", "minimum": 1, "maximum": MOST_OF_OVERVIEW, "default": ROWS_OF_OVERVIEW},
                "of the workers, and of the events",
            ),
        ),
    ),
)
