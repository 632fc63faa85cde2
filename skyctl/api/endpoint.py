"""One path of the API: find the method, see who asks, read, run the handler in its caller's turn, answer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import anyio
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skyctl.api.gates import Gates
from skyctl.api.http_protocol import PROVE
from skyctl.api.limits import Limit, Rate, caller_of
from skyctl.api.responses import NO_STORE, Content, bearer_token, encode, error_answer, read_body
from skyctl.api.turns import CallerLeft, Gathered, Kept
from skyctl.documents import http
from skyctl.domain.addresses import client_address
from skyctl.domain.cluster import Actor
from skyctl.domain.errors import Busy, SkyctlError, WorkerNotFound
from skyctl.host.condition import Condition
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context

BY_TOKEN = ("worker", "admin", "metrics")

REQUESTS = Counter("skyctl_http_requests", "Requests other than heartbeats, by answer", ["method", "route", "status"])

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request as a handler sees it: who sent it, and what the path, the query and the body say."""

    actor: Actor
    token: str
    path: Mapping[str, Any]
    query: Mapping[str, str]
    body: bytes

    @property
    def worker_id(self) -> UUID:
        """Return the path's worker. Raises WorkerNotFound where it is no id."""
        worker_id = http.worker_id(self.path["id"])
        if worker_id is None:
            raise WorkerNotFound("the path holds no worker's id", "ids are lower-case UUIDs")
        return worker_id


Answer = tuple[int, dict[str, Any] | Content]


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
    often each token may do it, and the short way, if there is one.

    Who: a `worker` or `admin` by a token of theirs, a reader of `metrics` by an administrator's or their own, `anyone`;
    `public` where anyone asks for what needs no database, `probe` and `alive` where machines ask how we are, with and
    without the database.
    """

    who: str
    handle: Handler
    refusal: Callable[[SkyctlError], Content] | None = None
    limit: Limit | None = None
    together: Together | None = None


class Endpoint:
    """The ASGI application of one path."""

    def __init__(self, context: Context, gates: Gates, path: str, operations: Mapping[str, Operation]) -> None:
        self._context, self._gates, self._path, self._operations = context, gates, path, operations
        self._kept: Kept[Answer | None] = Kept()
        self._answering = Condition(log, "request_failed", "requests_answered", f"path={path}")
        self._rates = {method: Rate(each.limit) for method, each in operations.items() if each.limit}
        self._gathered = {
            method: Gathered(partial(each.handle, context), each.most_waiting, each.most_at_once)
            for method, operation in operations.items()
            if (each := operation.together)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if request.method not in self._operations:
            raise HTTPException(405, headers={"Allow": ", ".join(self._operations)})
        operation = self._operations[request.method]
        headers: Mapping[str, str] = {}
        document: dict[str, Any] | Content
        try:
            answer = await self._run(operation, request)
            if answer is None:
                return
            status, document = answer
        except (ClientDisconnect, CallerLeft):
            return
        except SkyctlError as error:
            status, document, headers = error_answer(error)
            if operation.refusal:
                document = operation.refusal(error)
            if status >= 500:
                self._answering.failed(error.message)
        if status < 500:
            self._answering.works()
        REQUESTS.labels(request.method, self._path, status).inc()
        await response(status, document, headers)(scope, receive, send)

    async def _run(self, operation: Operation, request: Request) -> Answer | None:
        """Return the answer; None where the client has left meanwhile."""
        who = operation.who
        if who in BY_TOKEN:
            return await self._run_for_token(operation, request)
        caller = address_of(request)
        if who not in ("probe", "alive"):
            await self._gates.answers_to_strangers.turn(caller)
        body = await read_body(request.scope, request.receive)
        handle = partial(self._handle, operation, "", request, body)
        if who == "public":
            return handle()
        if who == "anyone":
            return await self._gates.strangers.run_unless_left(caller, handle, partial(_has_left, request))
        await self._gates.answers_to_probes.turn(caller)
        return handle() if who == "alive" else await self._kept.get(lambda: self._gates.probing.run("", handle))

    async def _run_for_token(self, operation: Operation, request: Request) -> Answer | None:
        try:
            token, caller = await self._token(operation.who, request)
        except SkyctlError:
            await self._gates.answers_to_strangers.turn(address_of(request))
            raise
        turns = self._gates.workers if operation.who == "worker" else self._gates.administrators
        rate = self._rates.get(request.method)
        if rate:
            rate.take(caller)
        body, has_left = await read_body(request.scope, request.receive), partial(_has_left, request)
        handle, gathered = partial(self._handle, operation, token, request, body), self._gathered.get(request.method)
        answer: Answer | None = None
        try:
            if gathered:
                outcome = await gathered.run(caller, _asked(_client(request), token, request, body), has_left)
                if isinstance(outcome, SkyctlError):
                    raise outcome
                answer = outcome
            answer = answer or await turns.run_unless_left(caller, handle, has_left)
        except Busy:
            if rate:
                rate.give_back(caller)
            raise
        request.scope["extensions"][PROVE]["seen"](caller)
        return answer

    async def _token(self, who: str, request: Request) -> tuple[str, str]:
        """Return the token, and whose it is. Raises Unauthorized, Forbidden by what can be seen of it without the
        database, before anything else is read."""
        token = bearer_token(request.scope["headers"]).decode("latin-1")
        if who == "metrics" and authentication.has_metrics_token(self._context, token):
            return token, who
        return token, await self._gates.holder(self._context, token, is_admin=who != "worker")

    def _handle(self, operation: Operation, token: str, request: Request, body: bytes) -> Answer:
        actor = _client(request)
        if operation.who == "admin":
            actor = authentication.administrator(self._context, token, actor.ip_address, actor.user_agent)
        elif operation.who == "metrics":
            authentication.reader_of_metrics(self._context, token)
        return operation.handle(self._context, _asked(actor, token, request, body))


def _client(request: Request) -> Actor:
    """Return a caller of whom nothing is known but from where and by what it asks."""
    client = client_address(request.client.host if request.client else None)
    return Actor("", None, client, request.headers.get("user-agent"))


def _asked(actor: Actor, token: str, request: Request, body: bytes) -> ApiRequest:
    return ApiRequest(actor, token, request.path_params, request.query_params, body)


def response(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in its form."""
    content = document if isinstance(document, Content) else Content(encode(document), "application/json")
    answer = Response(content.body, status, headers, media_type=content.media_type)
    answer.raw_headers.append(NO_STORE)
    return answer


def address_of(request: Request) -> str:
    """Return by what a stranger is known."""
    return caller_of(request.client.host if request.client else "")


async def _has_left(request: Request) -> bool:
    """Tell whether the client of a request, whose body was read, has closed the connection."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        return bool((await request.receive())["type"] == "http.disconnect")
    return False
