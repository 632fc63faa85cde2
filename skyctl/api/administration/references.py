"""What people may call things over HTTP, as a shell completes it."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, parameter
from skyctl.api.administration.schemas import many
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import TEXT, Document, json_object
from skyctl.domain.api_tokens import Role
from skyctl.domain.text import reference
from skyctl.operations.admin import migrations, services, workers
from skyctl.operations.shared.context import Context


class Kind(StrEnum):
    """What can be completed."""

    WORKERS = "workers"
    SERVICES = "services"
    ORGANIZATIONS = "organizations"


def _organizations(context: Context, prefix: str) -> Sequence[str]:
    known = (reference(organization.slug, organization.id) for organization in migrations.policies(context))
    return [candidate for candidate in known if candidate.startswith(prefix)]


FOUND: dict[Kind, Callable[[Context, str], Sequence[str]]] = {
    Kind.WORKERS: workers.references_from,
    Kind.SERVICES: services.references_from,
    Kind.ORGANIZATIONS: _organizations,
}


def complete(context: Context, request: ApiRequest) -> Document:
    """Return what begins so."""
    kind = reading.choice("kind", request.path["kind"], Kind)
    prefix = reading.storable("prefix", request.query.get("prefix", ""))
    return {"references": list(FOUND[kind](context, prefix))}


ROUTES = (
    Route(
        "GET",
        "/api/references/{kind}",
        Role.VIEWER,
        f"Some that begin so, by name, or by id where a shell would not take the name as it is; of {', '.join(Kind)}",
        complete,
        json_object(references=many(TEXT)),
        query=(parameter("prefix", TEXT),),
    ),
)
