"""Services over HTTP, as the database has them."""

from collections.abc import Sequence

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, parameter
from skyctl.api.administration.schemas import many
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, TEXT, TIME, Document, json_object, reference
from skyctl.documents import cli
from skyctl.documents.changes import Change
from skyctl.domain.api_tokens import Role
from skyctl.domain.states import ServiceOrder, ServiceStatus
from skyctl.operations.admin import services, workers
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context

HELD_BACK = ("labels", "command")


def told(context: Context, request: ApiRequest, *services: Document) -> list[Document]:
    """Return documents of services as they may be seen by the one who asks: labels and commands may hold a secret."""
    if reading.sees_secrets(context, request):
        return list(services)
    return [{key: value for key, value in service.items() if key not in HELD_BACK} for service in services]


def told_changes(context: Context, request: ApiRequest, changes: Sequence[Change]) -> list[Document]:
    """Return what changes of a service as it may be seen by the one who asks: see `told`."""
    if reading.sees_secrets(context, request):
        return [change.document for change in changes]
    return [change.hidden().document if _is_held_back(change.field) else change.document for change in changes]


def _is_held_back(field: str) -> bool:
    return field.partition(".")[0] in HELD_BACK


def list_services(context: Context, request: ApiRequest) -> Document:
    """List one page of services."""
    page = services.list_services(
        context,
        owners=reading.organizations(context, request),
        worker_ids=reading.worker_ids(context, request),
        statuses=reading.choices(request, "status", ServiceStatus),
        order=reading.order(request, ServiceOrder.ORGANIZATION),
        limit=reading.limit(request),
        offset=reading.offset(request),
    )
    document = cli.services_document(page)
    return document | {"services": told(context, request, *document["services"])}


def show(context: Context, request: ApiRequest) -> Document:
    """Show a service, its deployments and its migrations."""
    where = reading.organizations(context, request)
    found = lookup.find_service(context, reading.reference(request), next(iter(where), None))
    past, moves = services.history(context, found.id)
    [document] = told(context, request, cli.service_history_document(found, past, moves, workers.read_at(context)))
    return document


ROUTES = (
    Route(
        "GET",
        "/api/services",
        Role.VIEWER,
        "Services under management, by name",
        list_services,
        json_object(services=many(reference("Service")), total=COUNT, readAt=TIME),
        query=(
            reading.ORGANIZATION,
            reading.WORKER,
            parameter("status", TEXT, f"{reading.SEVERAL}: {', '.join(ServiceStatus)}"),
            reading.sort_by(ServiceOrder.ORGANIZATION),
            *reading.PAGE,
        ),
    ),
    Route(
        "GET",
        "/api/services/{reference}",
        Role.VIEWER,
        "A service, with its deployments and its migrations, the latest first",
        show,
        {
            "allOf": [
                reference("Service"),
                json_object(
                    readAt=TIME,
                    deployments=many(reference("Deployment")),
                    migrations=many(reference("Migration")),
                ),
            ]
        },
        query=(reading.ORGANIZATION,),
    ),
)
