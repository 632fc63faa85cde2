"""Pages of workers, services and migrations: which are wanted, in which order, and how many there are in all."""

import string
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa

from skyctl.domain.cluster import Worker
from skyctl.domain.fleets import Place
from skyctl.domain.states import MigrationOrder, MigrationState, ServiceOrder, ServiceStatus, WorkerOrder, WorkerStatus
from skyctl.domain.workloads import Migration, Service
from skyctl.store import counts, rows
from skyctl.store import migrations as stored_migrations
from skyctl.store import services as stored_services
from skyctl.store.rows import among
from skyctl.store.tables import deployments, migrations, organizations, services, workers

T = TypeVar("T")
Condition = sa.ColumnElement[bool]
COUNTED = 10_000  # of those that are searched for, or have labels; beyond that there are more
ADDRESS, ID = set(string.hexdigits + ".:/"), set(string.hexdigits + "-")

_NAME, _SERVICE = (workers.c.name, workers.c.id), (services.c.name, services.c.id)
# Texts and states from the first, figures and times from the highest.
_WORKER_ORDERS: dict[WorkerOrder, Sequence[Any]] = {
    WorkerOrder.NAME: (),
    WorkerOrder.STATUS: (rows.STATUS,),
    WorkerOrder.CPU: (workers.c.cpu_percent.desc().nulls_last(),),
    WorkerOrder.MEMORY: (workers.c.memory_percent.desc().nulls_last(),),
    WorkerOrder.DISK: (workers.c.disk_percent.desc().nulls_last(),),
    WorkerOrder.HEARTBEAT: (workers.c.last_heartbeat_at.desc().nulls_last(),),
}
_SERVICE_ORDERS: dict[ServiceOrder, Sequence[Any]] = {
    ServiceOrder.ORGANIZATION: (organizations.c.slug,),
    ServiceOrder.NAME: (),
    ServiceOrder.STATUS: (services.c.status,),
    ServiceOrder.WORKER: (workers.c.name.nulls_last(),),
    ServiceOrder.CHANGED: (services.c.updated_at.desc(),),
}
_UNFINISHED_FIRST = (migrations.c.finished_at.desc().nulls_first(), migrations.c.created_at.desc())
_MIGRATION_ORDERS: dict[MigrationOrder, Sequence[Any]] = {
    MigrationOrder.FINISHED: _UNFINISHED_FIRST,
    MigrationOrder.SERVICE: (sa.literal_column("service_name"), *_UNFINISHED_FIRST),
    MigrationOrder.STATE: (migrations.c.state, *_UNFINISHED_FIRST),
    MigrationOrder.CREATED: (migrations.c.created_at.desc(),),
}


def workers_page(
    connection: sa.Connection,
    *,
    statuses: Collection[WorkerStatus],
    regions: Collection[str],
    pools: Collection[str],
    search: str | None,
    order: WorkerOrder,
    after: Place | None,
    limit: int | None,
    offset: int,
) -> tuple[list[Worker], int, bool]:
    """Return a page of workers, all without `limit`; how many there are; and whether there are more than that. Of each
    collection that is not empty they are one; the empty region or pool is that of workers without one. What is searched
    is the beginning where it ends with an asterisk. Those `after` a place, if any, are in the order of the names."""
    wanted: list[Condition] = [rows.STATUS.in_(statuses)] if statuses else []
    wanted += [counts.NOT_ACTIVE] if statuses and WorkerStatus.ACTIVE not in statuses else []
    labelled: list[Condition] = [_label("region").in_(regions)] if regions else []
    labelled += [_label("pool").in_(pools)] if pools else []
    labelled += [_searched(search)] if search else []
    conditions: list[Any] = [*wanted, *labelled]
    number = 0
    if labelled:
        # by the text itself: a plan for any text would read all workers
        connection.execute(sa.select(sa.func.set_config("plan_cache_mode", "force_custom_plan", True)))
        fitting = sa.select(workers.c.id).where(*conditions).limit(COUNTED + 1).subquery().c.id
        as_text = sa.cast(sa.func.array_agg(fitting), sa.Text)  # handed back as it is: nobody reads it
        number, ids = connection.execute(sa.select(sa.func.count(fitting), as_text)).one()
        # few are found in any order: by that of the names they would be looked for one row after the other
        few = sa.text("container_workers.id = ANY (CAST(:fitting AS uuid[]))").bindparams(fitting=ids)
        conditions = conditions if number > COUNTED else [few]
    query = sa.select(*rows.COLUMNS).where(*conditions).order_by(*_WORKER_ORDERS[order], *_NAME)
    if after:
        query = query.where(sa.tuple_(*_NAME) > sa.tuple_(sa.literal(after.name), sa.literal(after.worker_id)))
    found = [rows.read(row) for row in connection.execute(query.limit(limit).offset(offset))]
    is_last = limit is None or len(found) < limit
    if after is None and is_last and (found or not offset):
        return found, offset + len(found), False
    if labelled:
        return found, min(number, COUNTED), number > COUNTED
    total = counts.of_statuses(connection, statuses) if statuses else counts.workers_in_all(connection)
    return found, total, False


def _searched(text: str) -> Condition:
    """Tell whether a worker's name, hostname, address or id has this text in it, or begins with what is before an
    asterisk at its end. What could be in no address, or in no id, is not looked for there."""
    searched = (rows.SEARCHED_NAME, rows.SEARCHED_HOSTNAME, rows.SEARCHED_ADDRESS)
    if text.endswith("*"):
        by_id = rows.beginning(workers.c.id, text[:-1])
        return sa.or_(*(rows.begins(field, text[:-1]) for field in searched), *([] if by_id is None else [by_id]))
    within = [*searched[:2], *searched[2:][: ADDRESS.issuperset(text)]]
    within += [sa.cast(workers.c.id, sa.Text)] if ID.issuperset(text) else []
    return sa.or_(*(sa.func.strpos(field, sa.func.lower(text)) > 0 for field in within))


def services_page(
    connection: sa.Connection,
    *,
    organization_ids: Collection[UUID],
    worker_ids: Collection[UUID],
    statuses: Collection[ServiceStatus],
    order: ServiceOrder,
    limit: int | None,
    offset: int,
) -> tuple[list[Service], int]:
    """Return a page of services, all without `limit`, and how many there are; of each collection that is not empty they
    are one."""
    wanted: list[Condition] = [stored_services.KEPT]
    wanted += [among(services.c.organization_id, organization_ids)] if organization_ids else []
    wanted += [among(deployments.c.worker_id, worker_ids)] if worker_ids else []
    wanted += [stored_services.SHOWN_STATUS.in_(statuses)] if statuses else []
    query = sa.select(*stored_services.COLUMNS).select_from(stored_services.JOINED).where(*wanted)
    total = sa.select(sa.func.count()).select_from(stored_services.JOINED).where(*wanted)
    ordered = query.order_by(*_SERVICE_ORDERS[order], *_SERVICE)
    return _page(connection, ordered, total, stored_services.read, limit, offset)


def migrations_page(
    connection: sa.Connection,
    *,
    states: Collection[MigrationState],
    worker_ids: Collection[UUID],
    order: MigrationOrder,
    limit: int | None,
    offset: int,
) -> tuple[list[Migration], int]:
    """Return a page of migrations, all without `limit`, and how many there are; in one of these states, off or to one
    of these workers, where there are any."""
    c = migrations.c
    wanted: list[Condition] = [c.state.in_(states)] if states else []
    if worker_ids:
        wanted.append(sa.or_(among(c.source_worker_id, worker_ids), among(c.target_worker_id, worker_ids)))
    query = sa.select(*stored_migrations.COLUMNS).select_from(stored_migrations.JOINED).where(*wanted)
    total = sa.select(sa.func.count()).select_from(migrations).where(*wanted)
    ordered = query.order_by(*_MIGRATION_ORDERS[order], c.id)
    return _page(connection, ordered, total, stored_migrations.read, limit, offset)


def _page(
    connection: sa.Connection,
    query: sa.Select[Any],
    total: sa.Select[int],
    read: Callable[[Any], T],
    limit: int | None,
    offset: int,
) -> tuple[list[T], int]:
    found = [read(row) for row in connection.execute(query.limit(limit).offset(offset))]
    count: int = connection.execute(total).scalar_one()
    return found, count


def _label(key: str) -> sa.ColumnElement[str]:
    return sa.func.coalesce(workers.c.metadata[key].astext, "")
