"""What the swarm runs over HTTP, whoever deployed it; a monitor asks the engine."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, parameter
from skyctl.api.administration.schemas import FLAG, MAYBE_TEXT, OBJECT, many
from skyctl.api.administration.services import told_changes
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, TEXT, Document, json_object, reference
from skyctl.documents import http, manifest, swarm
from skyctl.documents.workers import runs_document
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Worker
from skyctl.domain.errors import Refused, WorkerNotFound
from skyctl.domain.logs import LogOptions
from skyctl.operations.admin import swarm_orders, swarm_services
from skyctl.operations.admin.swarm_services import Known
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context

MOST_LINES, DEFAULT_LINES, MOST_CHARACTERS = 1000, 100, 500_000


def list_services(context: Context, _request: ApiRequest) -> Document:
    """List every service of the swarm."""
    return swarm.swarm_services_document(swarm_services.everything(context))


def runs(context: Context, request: ApiRequest) -> Document:
    """Tell what runs on workers, whoever deployed it; of one alone the engine is asked for no more than that."""
    found = list(_still_known(context, reading.several(request, "worker")))
    if len(found) == 1:
        return {"runs": {str(found[0].id): runs_document(found[0], swarm_services.on_worker(context, found[0]))}}
    there = swarm_services.on_workers(context, found)
    return {"runs": {str(worker.id): runs_document(worker, there[worker.id]) for worker in found}}


def _still_known(context: Context, references: Sequence[str]) -> Iterator[Worker]:
    """Give the workers of references, but those that were removed since they were listed."""
    for each in references:
        with suppress(WorkerNotFound):
            yield lookup.find_worker(context, each)


def show(context: Context, request: ApiRequest) -> Document:
    """Show a service as the swarm has it."""
    known = _known(context, request)
    document = swarm.swarm_details_document(swarm_services.details(context, known))
    if not reading.sees_secrets(context, request):
        del document["labels"]
    return document | {"serviceId": str(known.managed.id) if known.managed else None}


def logs(context: Context, request: ApiRequest) -> Document:
    """Show the last lines that a service's containers wrote."""
    tail = http.whole_number("tail", request.query.get("tail"), DEFAULT_LINES, 0, MOST_LINES)
    since = reading.sequence("since", request) if "since" in request.query else None
    lines = swarm_services.logs(context, _known(context, request), LogOptions(tail, since, False))
    found, length = list[Document](), 0
    for line, hostname in lines:
        if len(found) == MOST_LINES or length > MOST_CHARACTERS:
            return {"lines": found, "isCut": True}
        found.append(swarm.log_line_document(line, hostname))
        length += len(line.text)
    return {"lines": found, "isCut": False}


def scale(context: Context, request: ApiRequest) -> Document:
    """Change how many containers a service has."""
    known = _known(context, request)
    wanted = manifest.replicas(reading.body(request, "replicas").get("replicas"), 1 if known.managed else 0)
    return {"service": known.name, "changed": swarm_orders.scale(context, request.actor, known, wanted)}


def restart(context: Context, request: ApiRequest) -> Document:
    """Make a service's containers anew."""
    reading.body(request)
    known = _known(context, request)
    swarm_orders.restart(context, request.actor, known)
    return {"service": known.name}


def roll_back(context: Context, request: ApiRequest) -> Document:
    """Go back to what a service was before its owner's last change, or say what that would change."""
    said = reading.body(request, "dryRun", "expected")
    known = _known(context, request)
    way = swarm_orders.way_back(context, known)
    state = way.state(context)
    if "expected" in said and reading.text(said, "expected") != state:
        raise Refused(f"{known.name} was changed meanwhile", "look again at what it would go back to")
    if not reading.flag("dryRun", said):
        swarm_orders.roll_back(context, request.actor, known, way)
    return {"service": known.name, "changes": told_changes(context, request, way.changes), "state": state}


def _known(context: Context, request: ApiRequest) -> Known:
    where = reading.organizations(context, request)
    return swarm_services.find(context, reading.reference(request), next(iter(where), None))


CHANGES = many(json_object(field=TEXT, before=MAYBE_TEXT, after=MAYBE_TEXT))
OF_SERVICE = "/api/swarm/services/{reference}"
ROUTES = (
    Route(
        "GET",
        "/api/swarm/runs",
        Role.VIEWER,
        "What runs on these workers, by service, whoever deployed it",
        runs,
        json_object(runs={"type": "object", "additionalProperties": OBJECT}),
        query=(reading.WORKER,),
        by_monitor=True,
    ),
    Route(
        "GET",
        "/api/swarm/services",
        Role.VIEWER,
        "Every service of the swarm, whoever deployed it, by name",
        list_services,
        json_object(services=many(reference("SwarmService")), total=COUNT),
        by_monitor=True,
    ),
    Route(
        "GET",
        OF_SERVICE,
        Role.VIEWER,
        "A service as the swarm has it; of its variables, secrets and configs only the names",
        show,
        {
            "allOf": [
                reference("SwarmService"),
                json_object(
                    constraints=many(TEXT),
                    variables=many(TEXT),
                    secrets=many(TEXT),
                    configs=many(TEXT),
                    update=MAYBE_TEXT,
                    updateMessage=MAYBE_TEXT,
                    rollback=MAYBE_TEXT,
                    serviceId=MAYBE_TEXT,
                ),
            ]
        },
        query=(reading.ORGANIZATION,),
        by_monitor=True,
    ),
    Route(
        "GET",
        f"{OF_SERVICE}/logs",
        Role.OPERATOR,
        f"The last lines that a service's containers wrote, at most {MOST_LINES} in all",
        logs,
        json_object(lines=many(json_object(at=TEXT, node=TEXT, task=TEXT, text=TEXT)), isCut=FLAG),
        query=(
            parameter(
                "tail",
                {"type": "integer", "minimum": 0, "maximum": MOST_LINES, "default": DEFAULT_LINES},
                "of each container",
            ),
            parameter("since", {"type": "integer", "minimum": 0, "maximum": reading.MAX_SEQ}, "in seconds since 1970"),
            reading.ORGANIZATION,
        ),
        by_monitor=True,
    ),
    Route(
        "POST",
        f"{OF_SERVICE}/scale",
        Role.OPERATOR,
        "Change how many containers a service has; those that run stay as they are",
        scale,
        json_object(service=TEXT, changed=FLAG),
        query=(reading.ORGANIZATION,),
        body=reading.object_of(replicas=COUNT | {"maximum": manifest.MOST_REPLICAS}),
        by_monitor=True,
    ),
    Route(
        "POST",
        f"{OF_SERVICE}/restart",
        Role.OPERATOR,
        "Make a service's containers anew, one after the other",
        restart,
        json_object(service=TEXT),
        query=(reading.ORGANIZATION,),
        body=reading.object_of(),
        by_monitor=True,
    ),
    Route(
        "POST",
        f"{OF_SERVICE}/rollback",
        Role.OPERATOR,
        "Go back to what a service was before its owner's last change, or only say what that changes",
        roll_back,
        json_object(service=TEXT, changes=CHANGES, state=TEXT),
        query=(reading.ORGANIZATION,),
        body=reading.object_of(
            "dryRun",
            "expected",
            dryRun=FLAG,
            expected=TEXT | {"description": "the `state` that was answered before; it is refused where it is another"},
        ),
        by_monitor=True,
    ),
)
