"""The certificates that `serve` asks for, and what the monitor answers."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from skyctl.store.tables import certificate_requests


class Answer(NamedTuple):
    """The answer to a request: the certificate that was signed, or why none was; both None while it waits."""

    certificate: str | None
    refusal: str | None


def ask(connection: sa.Connection, request_id: str, request: str) -> bool:
    """Ask for a certificate, unless that was done; return whether it was not."""
    insert = postgresql.insert(certificate_requests).values(id=request_id, request=request)
    return bool(connection.execute(insert.on_conflict_do_nothing()).rowcount)


def answer(connection: sa.Connection, request_id: str) -> Answer | None:
    """Return the answer to a request; None where there is no such request."""
    c = certificate_requests.c
    row = connection.execute(sa.select(c.certificate, c.refusal).where(c.id == request_id)).one_or_none()
    return Answer(*row) if row else None


def waiting(connection: sa.Connection, limit: int) -> Sequence[tuple[str, str]]:
    """Return the id and the text of requests without an answer, the oldest first."""
    c = certificate_requests.c
    query = sa.select(c.id, c.request).where(c.certificate.is_(None), c.refusal.is_(None))
    return [(row.id, row.request) for row in connection.execute(query.order_by(c.asked_at, c.id).limit(limit))]


def settle(connection: sa.Connection, request_id: str, answered: Answer) -> None:
    """Answer a request."""
    update = sa.update(certificate_requests).where(certificate_requests.c.id == request_id)
    connection.execute(update.values(certificate=answered.certificate, refusal=answered.refusal))


def forget(connection: sa.Connection, age: timedelta) -> None:
    """Forget the requests that are older than that, whatever became of them."""
    old = certificate_requests.c.asked_at < sa.func.skyctl_now() - age
    connection.execute(sa.delete(certificate_requests).where(old))
