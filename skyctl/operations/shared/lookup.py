"""Look up a worker, service or migration by its id, a unique beginning of that, or its name."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TypeVar
from uuid import UUID

from skyctl.domain.cluster import Worker
from skyctl.domain.errors import (
    MigrationNotFound,
    ServiceNotFound,
    SkyctlError,
    ValidationError,
    WorkerNotFound,
)
from skyctl.domain.workloads import Migration, Organization, Service
from skyctl.operations.shared.context import Context
from skyctl.store import db, events, migrations, services, workers

SHORTEST_PREFIX = 4
MOST_NAMES = 1000

T = TypeVar("T")


def find_worker(context: Context, reference: str) -> Worker:
    """Return the worker of an id, a unique beginning of one (4 characters at least), or a name.

    Raises WorkerNotFound, or ValidationError where several fit or none is meant.
    """
    with context.db.transaction() as tx:
        return worker_of(tx, reference)


def worker_of(tx: db.Transaction, reference: str) -> Worker:
    """Return the worker of a reference, as `find_worker` does, in a transaction. Raises as it does."""
    return _only(
        "worker",
        reference,
        workers.matching(tx, reference) if reference.strip() else [],
        names=lambda worker: (worker.name, str(worker.id)),
        shown=lambda worker: f"{worker.name} ({worker.id})",
        missing=WorkerNotFound,
        near=lambda: _similar(tx, reference, workers.references),
    )


def find_workers(context: Context, references: Sequence[str]) -> list[Worker]:
    """Return the workers of several references, each worker once. Raises as `find_worker` does."""
    workers = [find_worker(context, reference) for reference in references]
    return list({worker.id: worker for worker in workers}.values())


def find_service(context: Context, reference: str, organization: Organization | None = None) -> Service:
    """Return the service of an id, a unique beginning of one (4 characters at least), or a name.

    Raises ServiceNotFound, or ValidationError where several fit or none is meant.
    """
    with context.db.transaction() as tx:
        where = organization.id if organization else None
        matching = [] if not reference.strip() else services.matching(tx, reference, where)
    return _only(
        "service",
        reference,
        matching,
        names=lambda service: (service.spec.name, service.slug, str(service.id)),
        shown=lambda service: f"{service.spec.name} of {service.organization} ({service.id})",
        missing=ServiceNotFound,
        near=lambda: similar(context, reference, services.references),
        unique_by="the id, or --org",
    )


def find_migration(context: Context, reference: str) -> Migration:
    """Return the migration of an id, a unique beginning of one (4 characters at least), or a service's unfinished one.

    Raises MigrationNotFound, or ValidationError where several fit or none is meant.
    """
    with context.db.transaction() as tx:
        matching = [] if not reference.strip() else migrations.matching(tx, reference)
    return _only(
        "migration",
        reference,
        matching,
        names=_names_of_migration,
        shown=lambda migration: f"{migration.service_name} ({migration.id})",
        missing=MigrationNotFound,
        name="a service's name",
    )


def similar(context: Context, reference: str, beginning: Callable[[db.Transaction, str, int], Sequence[str]]) -> str:
    """Return a question for what was meant by a reference to nothing, of the names `beginning` with a text; empty where
    none is similar."""
    with context.db.transaction() as tx:
        return _similar(tx, reference, beginning)


def _similar(tx: db.Transaction, reference: str, beginning: Callable[[db.Transaction, str, int], Sequence[str]]) -> str:
    for length in dict.fromkeys((len(reference) - 1, len(reference) // 2, 1, 0)):
        if question := did_you_mean(reference, beginning(tx, reference[:length], MOST_NAMES)):
            return question
    return ""


def did_you_mean(reference: str, names: Sequence[str]) -> str:
    """Return a question for which of the names was meant by a reference to none; empty where none is similar."""
    near = get_close_matches(reference, names)
    return f"did you mean {' or '.join(near)}? " if near else ""


def _names_of_migration(migration: Migration) -> tuple[str, ...]:
    names = () if migration.finished_at else (migration.service_name, migration.service_slug)
    return (str(migration.id), *names)


def get_worker(tx: db.Transaction, worker_id: UUID) -> Worker:
    """Return the worker of this id. Raises WorkerNotFound."""
    return _existing(workers.get(tx, worker_id), worker_id)


def lock_worker(tx: db.Transaction, worker_id: UUID) -> Worker:
    """Return the worker of this id, locked against changes until the transaction ends; the event log is locked first.

    Raises WorkerNotFound.
    """
    events.lock(tx)
    return _existing(workers.get(tx, worker_id, lock=True), worker_id)


def _existing(worker: Worker | None, worker_id: UUID) -> Worker:
    if worker is None:
        raise WorkerNotFound(f"there is no worker {worker_id}", "see `skyctl workers list`")
    return worker


def _only(
    noun: str,
    reference: str,
    matching: Sequence[T],
    *,
    names: Callable[[T], Sequence[str]],
    shown: Callable[[T], str],
    missing: type[SkyctlError],
    near: Callable[[], str] = str,
    name: str = "a name",
    unique_by: str = "the id",
) -> T:
    """Return the only match of a reference: an exact name comes before the beginning of an id."""
    if not reference.strip():
        raise ValidationError(f"{noun.upper()} is empty", f"give an id, a unique beginning of one, or {name}")
    exact = [match for match in matching if reference in names(match)]
    meant = exact or (matching if len(reference) >= SHORTEST_PREFIX else [])
    if not meant:
        raise missing(f"there is no {noun} {reference!r}", f"{near()}see `skyctl {noun}s list`")
    if len(meant) > 1:
        several = ", ".join(shown(match) for match in meant)
        raise ValidationError(f"{reference!r} means several {noun}s: {several}", f"give {unique_by}")
    return meant[0]
