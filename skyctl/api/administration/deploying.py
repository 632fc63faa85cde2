"""Services over HTTP: deployed, adopted, given back and removed; a monitor orders the engine."""

from collections.abc import Mapping
from typing import Any

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route, parameter
from skyctl.api.administration.schemas import FLAG, MAYBE_NUMBER, MAYBE_TEXT, OBJECT, many, maybe, one_of
from skyctl.api.administration.services import told, told_changes
from skyctl.api.administration.swarm import CHANGES
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, TEXT, Document, json_object, reference
from skyctl.documents import changes, cli, manifest
from skyctl.documents import prospects as documents
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Capacity
from skyctl.domain.errors import Forbidden, ValidationError
from skyctl.domain.states import EvenIf
from skyctl.domain.workloads import Service, ServiceSpec
from skyctl.operations.admin import adoption, deploy, prospects, services
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context


def deploy_service(context: Context, request: ApiRequest) -> Document:
    """Deploy a service, or change one where it is."""
    said = reading.body(request, *manifest.FIELDS, "organization", "dryRun", "keep")
    dry_run, keep = reading.flag("dryRun", said), reading.flag("keep", said)
    named = reading.text(said, "organization") if "organization" in said else None
    fields = {field: value for field, value in said.items() if field in manifest.FIELDS}
    name = reading.text(said, "name") if keep else manifest.spec(fields).name
    where = services.organization(context, named, make=True, dry_run=dry_run)
    before = services.existing(context, where, name)
    if keep and before and not reading.sees_secrets(context, request):
        _refuse_to_show_variables(before, fields)
    spec = _changed(before, fields) if keep else manifest.spec(fields)
    keeps_image = keep and "image" not in fields
    planned = deploy.deploy(context, request.actor, where, spec, dry_run=dry_run, keeps_image=keeps_image)
    made = told_changes(context, request, changes.changes(before.spec, spec) if before else [])
    return cli.planned_document(planned) | {"image": spec.image, "changes": made}


def _refuse_to_show_variables(before: Service, fields: Mapping[str, Any]) -> None:
    """Refuse that somebody who may not see the variables of a service has them handed to what prints them."""
    if before.spec.environment and {"image", "command"} & fields.keys():
        raise Forbidden(
            f"{before.spec.name} has variables, which another image or command could show",
            "ask an administrator; or deploy it without `keep`, with all its fields",
        )


def _changed(before: Service | None, fields: Mapping[str, Any]) -> ServiceSpec:
    """Return a service of which only some fields are to be others. Raises ValidationError."""
    if before:
        return manifest.spec(manifest.changed(manifest.fields(before.spec), fields) | {"name": before.spec.name})
    if not fields.get("image"):
        name = fields["name"]
        raise ValidationError(f"image is missing: there is no service {name!r} yet", "give --image, such as nginx:1.27")
    return manifest.spec(fields)


def remove(context: Context, request: ApiRequest) -> Document:
    """Remove a service and its containers."""
    removed = services.remove(context, _service(context, request).id, request.actor)
    return told(context, request, cli.service_document(removed))[0]


def release(context: Context, request: ApiRequest) -> Document:
    """Give a service back to the swarm."""
    reading.body(request)
    released = adoption.release(context, _service(context, request).id, request.actor)
    return told(context, request, cli.service_document(released))[0]


def list_adoptable(context: Context, request: ApiRequest) -> Document:
    """List what could be taken under management."""
    limits = manifest.limits(request.query, Capacity())
    even_if = reading.choices(request, "evenIf", EvenIf)
    names, stack = reading.several(request, "service"), request.query.get("stack") or None
    found = adoption.chosen(adoption.adoptable(context, limits, even_if), names, stack)
    return {"services": [cli.adoptable_document(each) for each in found]}


def adopt(context: Context, request: ApiRequest) -> Document:
    """Take services of the swarm under management."""
    said = reading.body(request, *CHOICE, *LIMITS, "organization", "evenIf", "dryRun")
    names, dry_run = reading.texts(said, "services", optional=True), reading.flag("dryRun", said)
    stack = reading.text(said, "stack") if "stack" in said else None
    reading.one_of(services=bool(names), stack=bool(stack), all=reading.flag("all", said))
    even_if = [reading.choice("evenIf", each, EvenIf) for each in reading.texts(said, "evenIf", optional=True)]
    named = reading.text(said, "organization") if "organization" in said else None
    found = adoption.adoptable(context, manifest.limits(said, Capacity()), even_if)
    wanted = adoption.chosen(found, names, stack)
    where = services.organization(context, named, make=True, dry_run=dry_run)
    failed = [] if dry_run else adoption.adopt(context, request.actor, where, wanted)
    why = {each.engine.id: reason for each, reason in failed}
    rows = [cli.adoptable_document(each) | {"error": why.get(each.engine.id)} for each in wanted]
    return {"organization": where.slug, "services": rows}


def _service(context: Context, request: ApiRequest) -> Service:
    where = reading.organizations(context, request)
    return lookup.find_service(context, reading.reference(request), next(iter(where), None))


def why(context: Context, request: ApiRequest) -> Document:
    """Tell where a service could be moved to, and what speaks against each worker."""
    return documents.outlook_document(prospects.outlook(context, _service(context, request)))


CHOICE = ("services", "stack", "all")
LIMITS: Document = {limit: {"type": ["string", "number"]} for limit in ("cpu", "memory", "disk")}
FIELDS: Document = {
    "name": TEXT,
    "image": TEXT,
    **LIMITS,
    "env": OBJECT,
    "ports": many(TEXT),
    "endpointMode": TEXT,
    "labels": OBJECT,
    "command": many(TEXT),
    "replicas": {"type": "integer", "minimum": 1, "maximum": manifest.MOST_REPLICAS},
    **dict.fromkeys(("region", "pool", "spread"), TEXT),
}
ADOPTABLE: Document = {
    **dict.fromkeys(("name", "swarmServiceId", "image"), TEXT),
    **dict.fromkeys(("node", "workerId", "workerName", "obstacle"), MAYBE_TEXT),
    "replicas": MAYBE_NUMBER,
    "limits": OBJECT,
    "evenIf": maybe(one_of(EvenIf)),
}
ROUTES = (
    Route(
        "POST",
        "/api/services",
        Role.OPERATOR,
        "Deploy a service as a file of `skyctl services deploy -f FILE` says, or only say where it would go",
        deploy_service,
        json_object(
            service=TEXT,
            organization=TEXT,
            source=MAYBE_TEXT,
            target=MAYBE_TEXT,
            reason=TEXT,
            unpinned=MAYBE_TEXT,
            image=TEXT,
            changes=CHANGES,
        ),
        body=reading.object_of(
            *(field for field in FIELDS if field != "name"),
            "organization",
            "dryRun",
            "keep",
            **FIELDS,
            organization=TEXT,
            dryRun=FLAG,
            keep=FLAG | {"description": "what is not given stays as it is; variables and labels are added"},
        ),
        by_monitor=True,
    ),
    Route(
        "GET",
        "/api/services/{reference}/why",
        Role.VIEWER,
        "Where a service could be moved to now: the best first, and of each other worker the rule that excludes it",
        why,
        json_object(
            serviceId=TEXT,
            service=TEXT,
            replicas=COUNT,
            workerName=MAYBE_TEXT,
            move=maybe(reference("Migration")),
            stays=MAYBE_TEXT,
            workers=COUNT,
            eligible=COUNT,
            places=many(
                json_object(
                    workerId=TEXT,
                    workerName=TEXT,
                    exclusion=MAYBE_TEXT,
                    failedLately=FLAG,
                    siblings=COUNT,
                    loadPercent=MAYBE_NUMBER,
                )
            ),
        ),
        query=(reading.ORGANIZATION,),
        by_monitor=True,
    ),
    Route(
        "DELETE",
        "/api/services/{reference}",
        Role.ADMIN,
        "Remove a service and its containers",
        remove,
        reference("Service"),
        query=(reading.ORGANIZATION,),
        by_monitor=True,
    ),
    Route(
        "POST",
        "/api/services/{reference}/release",
        Role.ADMIN,
        "Give a service back to the swarm as it was; it runs on",
        release,
        reference("Service"),
        query=(reading.ORGANIZATION,),
        body=reading.object_of(),
        by_monitor=True,
    ),
    Route(
        "GET",
        "/api/swarm/adoptable",
        Role.VIEWER,
        "The services of the swarm that are not under management, and what speaks against taking each",
        list_adoptable,
        json_object(services=many(json_object(**ADOPTABLE))),
        query=(
            parameter("service", TEXT, f"{reading.SEVERAL}: names or ids in the engine"),
            parameter("stack", TEXT, "only those of a stack"),
            parameter("evenIf", TEXT, f"{reading.SEVERAL}: {', '.join(EvenIf)}"),
            *(parameter(limit, TEXT, "in place of the engine's") for limit in LIMITS),
        ),
        by_monitor=True,
    ),
    Route(
        "POST",
        "/api/swarm/adopt",
        Role.ADMIN,
        "Take services of the swarm under management where they run: these, all of a stack, or all",
        adopt,
        json_object(organization=TEXT, services=many(json_object(**ADOPTABLE, error=MAYBE_TEXT))),
        body=reading.object_of(
            *CHOICE,
            *LIMITS,
            "organization",
            "evenIf",
            "dryRun",
            services=many(TEXT) | {"maxItems": reading.MOST_NAMED},
            stack=TEXT,
            all=FLAG,
            **LIMITS,
            organization=TEXT,
            evenIf=many(one_of(EvenIf)),
            dryRun=FLAG,
        ),
        by_monitor=True,
    ),
)
