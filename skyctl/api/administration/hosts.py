"""Workers over HTTP, where a monitor asks the engine or signs: what a drain would do, whose a node is, newer agents."""

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route
from skyctl.api.administration.schemas import FLAG, MAYBE_TEXT, many, one_of
from skyctl.api.administration.workers import OF_WORKER, WORKERS
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, TEXT, Document, json_object
from skyctl.documents import cli
from skyctl.domain.api_tokens import Role
from skyctl.domain.drains import DrainOptions
from skyctl.domain.states import Upgrade
from skyctl.operations.admin import drain_plans, drains, node_claims
from skyctl.operations.agents import upgrades
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context


def plan(context: Context, request: ApiRequest) -> Document:
    """Say where a drain would move each service."""
    said = reading.body(request, "workers", "keepGlobal", "moveLocalData")
    ids = [worker.id for worker in lookup.find_workers(context, reading.texts(said, "workers"))]
    wish = DrainOptions(
        keep_global=reading.flag("keepGlobal", said), move_local_data=reading.flag("moveLocalData", said)
    )
    return cli.plan_document(drain_plans.plan(context, ids, wish))


def still_there(context: Context, request: ApiRequest) -> Document:
    """Say what is on a worker that is being emptied."""
    return cli.still_there_document(drains.still_there(context, request.worker_id))


def confirm(context: Context, request: ApiRequest) -> Document:
    """Say that the swarm node which a worker claims is its own."""
    node = reading.text(reading.body(request, "node"), "node")
    _, hostname = node_claims.allow(context, request.worker_id, node, request.actor)
    return {"node": node, "hostname": hostname}


def upgrade(context: Context, request: ApiRequest) -> Document:
    """Offer workers the agent of this version."""
    said = reading.body(request, "workers", "all", "dryRun")
    named, everyone = reading.texts(said, "workers", optional=True), reading.flag("all", said)
    reading.one_of(workers=bool(named), all=everyone)
    only = None if everyone else [worker.id for worker in lookup.find_workers(context, named)]
    outcomes = upgrades.upgrade(context, request.actor, only, dry_run=reading.flag("dryRun", said))
    return {"release": str(upgrades.release()), "workers": [upgraded.document for upgraded in outcomes]}


ROUTES = (
    Route(
        "POST",
        "/api/drains/plan",
        Role.VIEWER,
        "What a drain of these workers would move, where to, and what would stay; nothing is changed",
        plan,
        json_object(
            containers=many(
                json_object(
                    service=TEXT,
                    organization=TEXT,
                    source=MAYBE_TEXT,
                    target=MAYBE_TEXT,
                    reason=TEXT,
                    unpinned=MAYBE_TEXT,
                    way=TEXT,
                    containers=COUNT,
                    left=FLAG,
                )
            )
        ),
        body=reading.object_of("keepGlobal", "moveLocalData", workers=WORKERS, keepGlobal=FLAG, moveLocalData=FLAG),
        by_monitor=True,
    ),
    Route(
        "GET",
        f"{OF_WORKER}/still-there",
        Role.VIEWER,
        "What is on a worker that is being emptied, as the engine shows it now and its agent counted last",
        still_there,
        json_object(left=many(TEXT), others=many(TEXT), unknown=MAYBE_TEXT),
        by_monitor=True,
    ),
    Route(
        "POST",
        f"{OF_WORKER}/confirm",
        Role.ADMIN,
        "Say that the swarm node which it claims is its own",
        confirm,
        json_object(node=TEXT, hostname=TEXT),
        body=reading.object_of(node=TEXT),
        by_monitor=True,
    ),
    Route(
        "POST",
        "/api/upgrades",
        Role.ADMIN,
        "Offer these workers, or all, the agent of this version",
        upgrade,
        json_object(release=TEXT, workers=many(json_object(id=TEXT, name=TEXT, outcome=one_of(Upgrade), reason=TEXT))),
        body=reading.object_of("workers", "all", "dryRun", workers=WORKERS, all=FLAG, dryRun=FLAG),
        by_monitor=True,
    ),
)
