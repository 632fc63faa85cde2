"""What an operation of the API is, whichever process runs it: who may ask, what it sees of the request, what it
answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from skyctl.documents import http
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Actor
from skyctl.domain.errors import SkyctlError, WorkerNotFound
from skyctl.operations.shared.context import Context


class Limit(NamedTuple):
    """How often a caller may ask: so many times at once, and then once each so many seconds."""

    at_once: int
    seconds: float


class Log(StrEnum):
    """The logs that can be followed."""

    EVENTS = "events"
    ALERTS = "alerts"


class Content(NamedTuple):
    """An answer that is not JSON."""

    body: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request as a handler sees it: who sent it, and what the path, the query and the body say."""

    actor: Actor
    token: str
    path: Mapping[str, Any]
    query: Mapping[str, str]
    body: bytes
    role: Role | None = None
    """What the one who asks may do, where another process has found that out; else the token says it."""

    @property
    def worker_id(self) -> UUID:
        """Return the path's worker. Raises WorkerNotFound where it is no id."""
        worker_id = http.worker_id(self.path["id"])
        if worker_id is None:
            raise WorkerNotFound("the path holds no worker's id", "ids are lower-case UUIDs")
        return worker_id


class Entry(NamedTuple):
    """An entry of a log: its number, what kind it is, its document."""

    number: int
    kind: str
    document: dict[str, Any]


class Page(NamedTuple):
    """Some entries, and the number after which to go on."""

    entries: Sequence[Entry]
    last: int


Answer = tuple[int, dict[str, Any] | Content | Page]


class Handler(Protocol):
    """The function behind a route."""

    def __call__(self, context: Context, request: ApiRequest, /) -> Answer:
        """Return the status and the document of the answer. Raises SkyctlError."""


class Together(NamedTuple):
    """A short way for many requests at once: the function returns None for those that the handler is to answer, and the
    errors of those that it need not try."""

    handle: Callable[[Context, Sequence[ApiRequest]], Sequence[Answer | SkyctlError | None]]
    most_waiting: int
    most_at_once: int


class Operation(NamedTuple):
    """A method of a path: who asks, what is done, what is sent in place of an error's document, if anything, and how
    often each token may do it, and the short way, if there is one; whether it waits for another process; of
    which log it streams what comes, if any: then it gives a Page of what is after `since` of the query.

    Who: a `worker` by its token; whoever acts in a role (`viewer`, `operator`, `admin`) by a token of the API or an
    administrator's of the panel; a reader of `metrics` by one of these or their own; `anyone`; `public` where anyone
    asks for what needs no database, `probe` and `alive` where machines ask how we are, with and
    without the database.
    """

    who: str
    handle: Handler
    refusal: Callable[[SkyctlError], Content] | None = None
    limit: Limit | None = None
    together: Together | None = None
    waits: bool = False
    stream: Log | None = None
