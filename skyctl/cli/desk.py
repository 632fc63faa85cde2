"""How a command has an operation done: in this process, with the database of its settings, or by a manager over HTTP.

Either way it is the same operation of the one table, and the same document.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import typer

from skyctl import documents, host
from skyctl.cli import way
from skyctl.cli.context import actor, open_context
from skyctl.domain.errors import NameNotFound, ValidationError
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.documents.http import Document
    from skyctl.host.api_client import ApiClient
    from skyctl.operations.shared.context import Context

MOST_AT_ONCE = 1000  # rows that one answer may have
MOST_NAMED = 500  # ids in the query of one request

Query = Mapping[str, str | int | None]


class News(Protocol):
    """Becomes readable when there is something new."""

    def fileno(self) -> int:
        """The descriptor to wait for."""
        ...

    def drain(self) -> None:
        """Take what has arrived, without waiting. Raises DatabaseUnavailable, ManagerUnavailable."""


class Desk(Protocol):
    """Where operations are asked for."""

    def ask(
        self, operation: str, query: Query | None = None, body: "Document | None" = None, **path: str
    ) -> "Document":
        """Return what the API answers to an operation, such as `GET /api/workers/{id}`. Raises SkyctlError."""

    def listening(self, *, to_alerts: bool = False) -> AbstractContextManager[News]:
        """Listen to the log of events, or of alerts. Raises DatabaseUnavailable, ManagerUnavailable."""


class _LocalNews:
    def __init__(self, notifications: Any) -> None:
        self._notifications = notifications

    def fileno(self) -> int:
        descriptor: int = self._notifications.fileno()
        return descriptor

    def drain(self) -> None:
        admin.events.drain(self._notifications)


class Local:
    """In this process."""

    def __init__(self, context: "Context") -> None:
        self.context = context

    def ask(
        self, operation: str, query: Query | None = None, body: "Document | None" = None, **path: str
    ) -> "Document":
        """Do it here."""
        from skyctl.api.administration import table  # here, since it loads the database's driver
        from skyctl.api.operation import ApiRequest  # here, for the same reason

        content = b"" if body is None else json.dumps(body).encode()
        return table.answer(self.context, operation, ApiRequest(actor(), "", path, _said(query), content))

    @contextmanager
    def listening(self, *, to_alerts: bool = False) -> Iterator[News]:
        """Listen to the database."""
        with admin.events.listening(self.context, to_alerts=to_alerts) as notifications:
            yield _LocalNews(notifications)


class _Remote:
    """By a manager."""

    def __init__(self, client: "ApiClient") -> None:
        self._client = client

    def ask(
        self, operation: str, query: Query | None = None, body: "Document | None" = None, **path: str
    ) -> "Document":
        """Have it done there."""
        method, _, template = operation.partition(" ")
        url = template.format_map({name: _segment(value) for name, value in path.items()})
        return self._client.ask(method, url, _said(query), body)

    def listening(self, *, to_alerts: bool = False) -> AbstractContextManager[News]:
        """Listen to a stream."""
        return self._client.listening(f"/api/{'alerts' if to_alerts else 'events'}/stream")


@contextmanager
def open_desk(ctx: typer.Context) -> Iterator[Desk]:
    """Open the way that this call takes. Raises ValidationError, DatabaseUnavailable."""
    address = way.address(ctx)
    if address is None:
        with open_context(ctx) as context:
            yield Local(context)
        return
    client = host.api_client.ApiClient(address)
    try:
        yield _Remote(client)
    finally:
        client.close()


def worker(desk: Desk, reference: str) -> "Document":
    """Return the worker of an id, a unique beginning of one, or a name. Raises WorkerNotFound, ValidationError."""
    found: Document = desk.ask("GET /api/workers/named/{reference}", reference=reference)["data"]
    return found


def workers(desk: Desk, references: Sequence[str]) -> list["Document"]:
    """Return the workers of several references, each worker once. Raises as `worker` does."""
    found = [worker(desk, reference) for reference in references]
    return list({each["id"]: each for each in found}.values())


def reason(said: str | None) -> "Document":
    """Return what an operation's body says of an option `--reason`. Raises ValidationError."""
    return {} if said is None else {"reason": documents.http.reason(said, "--reason")}


def monitor(desk: Desk) -> "Document":
    """Return what is known of the monitor. Raises SkyctlError."""
    return desk.ask("GET /api/workers", {"limit": 1})


def overview(desk: Desk, rows: int) -> "Document":
    """Return the cluster at one moment, with at most so many of the worst workers and of the last events."""
    found: Document = desk.ask("GET /api/cluster", {"rows": rows})["data"]
    return found


def page(desk: Desk, operation: str, rows: str, query: Query, offset: int, limit: int | None) -> "Document":
    """Return a page of a list, of as many answers as it takes; `rows` is what the list is called in them. Raises
    SkyctlError."""
    document: Document = {}
    for size in sizes(limit):
        answer = desk.ask(operation, {**query, "offset": offset, "limit": size})["data"]
        document = document or answer | {rows: []}
        document[rows] += answer[rows]
        if len(answer[rows]) < size:
            break
        offset += size
    return document


def last(desk: Desk, operation: str, rows: str, number: str, query: Query, limit: int | None) -> "Document":
    """Return the last entries of a log in their order, of as many answers as it takes; `rows` and `number` are what the
    entries and their numbers are called in them. Raises SkyctlError."""
    document: Document = {}
    before: int | None = None
    for size in sizes(limit):
        answer = desk.ask(operation, {**query, "before": before, "limit": size})["data"]
        found = answer[rows]
        document = answer | {rows: found + document.get(rows, [])}
        if len(found) < size:
            break
        before = found[0][number]
    return document


def sizes(limit: int | None) -> Iterator[int]:
    """Give how many rows to ask for, one answer after the other, until so many were asked for (None: for ever)."""
    left = limit
    while left is None or left > 0:
        size = MOST_AT_ONCE if left is None else min(left, MOST_AT_ONCE)
        yield size
        left = None if left is None else left - size


def _segment(name: str) -> str:
    """Return a name as a part of a path. Raises ValidationError for none, NameNotFound for what would be several."""
    if not name.strip():
        raise ValidationError("a name or an id is empty", "say which one is meant")
    if "/" in name:
        raise NameNotFound(f"nothing is called {name!r}", "names and ids hold no slash")
    return quote(name, safe="")


def _said(query: Query | None) -> dict[str, str]:
    return {name: str(value) for name, value in (query or {}).items() if value is not None}
