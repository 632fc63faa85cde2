"""One path of the API: find the method, see who asks, read, run the handler in its caller's turn, answer."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skyctl.api import streams
from skyctl.api.gates import Gates
from skyctl.api.http_protocol import CONNECTION
from skyctl.api.limits import Rate, caller_of, caller_of_user
from skyctl.api.operation import Answer, ApiRequest, Content, Log, Operation, Page
from skyctl.api.responses import NO_STORE, bearer_token, encode, error_answer, read_body
from skyctl.api.turns import CallerLeft, Gathered, Kept, Turns
from skyctl.domain.addresses import client_address
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Actor
from skyctl.domain.errors import Busy, Forbidden, SkyctlError, Unauthorized
from skyctl.host.condition import Condition
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context

BY_TOKEN = ("worker", *Role, "metrics")

REQUESTS = Counter("skyctl_http_requests", "Requests other than heartbeats, by answer", ["method", "route", "status"])

log = logging.getLogger(__name__)


class Endpoint:
    """The ASGI application of one path."""

    def __init__(self, context: Context, gates: Gates, path: str, operations: Mapping[str, Operation]) -> None:
        self._context, self._gates, self._path, self._operations = context, gates, path, operations
        self._kept: Kept[Answer | None] = Kept()
        self._answering = Condition(log, "request_failed", "requests_answered", f"path={path}")
        self._rates = {method: Rate(each.limit) for method, each in operations.items() if each.limit}
        self._news = {
            method: streams.News(context, to_alerts=each.stream is Log.ALERTS)
            for method, each in operations.items()
            if each.stream
        }
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
        document: dict[str, Any] | Content | Page
        if operation.stream:
            request = streams.resumed(request)
        try:
            answer = await self._run(operation, request)
            if answer is None:
                return
            status, document = answer
            if isinstance(document, Page):
                await self._stream(operation, request, document, send)
                return
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
        if who in BY_TOKEN and who != "worker" and _user(request) is not None:
            return await self._run_for_user(operation, request)
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

    async def _run_for_user(self, operation: Operation, request: Request) -> Answer | None:
        """Run it in the turn of a user of this machine. Whether they may ask is looked up in that turn, too: the lists
        of users may be another machine's."""
        body = await read_body(request.scope, request.receive)
        handle = partial(self._handle, operation, "", request, body)
        return await self._turns_of(operation).run_unless_left(address_of(request), handle, partial(_has_left, request))

    async def _run_for_token(self, operation: Operation, request: Request) -> Answer | None:
        to_get_one = authentication.TO_GET_ONE[operation.who]
        try:
            token = bearer_token(request.scope["headers"], to_get_one).decode("latin-1")
            is_of_api = operation.who != "worker" and authentication.is_api_token(token)
            caller = "" if is_of_api else await self._holder(operation.who, token)
        except SkyctlError:
            await self._gates.answers_to_strangers.turn(address_of(request))
            raise
        if is_of_api:
            return await self._run_for_api_token(operation, token, request)
        turns = self._gates.workers if operation.who == "worker" else self._turns_of(operation)
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
        request.scope["extensions"][CONNECTION]["prove"](caller)
        return answer

    async def _run_for_api_token(self, operation: Operation, token: str, request: Request) -> Answer | None:
        """Run it in the holder's turn, or, where that is not known to be one, in a stranger's: only the database knows
        these tokens."""
        fingerprint = authentication.fingerprint(token)
        turns, caller = self._turns_of(operation), fingerprint
        has_left = partial(_has_left, request)
        if not self._gates.was_good(fingerprint):
            stranger = address_of(request)
            await self._gates.answers_to_strangers.turn(stranger)
            if operation.waits:  # no stranger's thread does
                authenticate = partial(self._authenticated, operation.who, token, request)
                await self._gates.strangers.run(stranger, authenticate)
            else:
                turns, caller = self._gates.strangers, stranger
        body = await read_body(request.scope, request.receive)
        handle = partial(self._handle, operation, token, request, body)
        answer = await turns.run_unless_left(caller, handle, has_left)
        if answer:
            request.scope["extensions"][CONNECTION]["prove"](fingerprint)
        return answer

    async def _stream(self, operation: Operation, request: Request, first: Page, send: Send) -> None:
        """Send what comes of a log; whether the token is still good is asked each time."""
        token, caller = "", address_of(request)
        if _user(request) is None:
            token = bearer_token(request.scope["headers"], "").decode("latin-1")
            caller = authentication.fingerprint(token)

        async def read(last: int) -> Page:
            handle = partial(self._handle, operation, token, streams.after(request, last), b"")
            _, page = await self._gates.administrators.run(caller, handle)
            return page if isinstance(page, Page) else first

        await streams.run(request, send, self._news[request.method], caller, read, first)

    def _turns_of(self, operation: Operation) -> Turns:
        return self._gates.asking if operation.waits else self._gates.administrators

    async def _holder(self, who: str, token: str) -> str:
        """Return whose token it is. Raises Unauthorized, Forbidden by what can be seen of it without the database,
        before anything else is read."""
        if who == "metrics" and authentication.has_metrics_token(self._context, token):
            return who
        return await self._gates.holder(self._context, token, who)

    def _handle(self, operation: Operation, token: str, request: Request, body: bytes) -> Answer:
        actor = self._authenticated(operation.who, token, request)
        return operation.handle(self._context, _asked(actor, token, request, body))

    def _authenticated(self, who: str, token: str, request: Request) -> Actor:
        """Return who asks, and note whether a token of the API is one. Raises Unauthorized, Forbidden."""
        client, user = _client(request), _user(request)
        if who in BY_TOKEN and user is not None:
            return authentication.user_of_this_machine(user, client.user_agent)
        note = self._gates.note_token if authentication.is_api_token(token) else None
        try:
            if who in list(Role):
                role = Role(who)
                client = authentication.holder_of_role(self._context, token, role, client.ip_address, client.user_agent)
            elif who == "metrics":
                authentication.reader_of_metrics(self._context, token)
        except (Unauthorized, Forbidden) as error:
            if note:
                note(authentication.fingerprint(token), good=isinstance(error, Forbidden))
            raise
        if note:
            note(authentication.fingerprint(token), good=True)
        return client


def _client(request: Request) -> Actor:
    """Return a caller of whom nothing is known but from where and by what it asks."""
    client = client_address(request.client.host if request.client else None)
    return Actor("", None, client, request.headers.get("user-agent"))


def _user(request: Request) -> int | None:
    """Return which user of this machine asks by its socket and shows nothing else; None for everybody else."""
    return None if "authorization" in request.headers else _at_other_end(request)


def _at_other_end(request: Request) -> int | None:
    user: int | None = request.scope["extensions"][CONNECTION]["user"]
    return user


def _asked(actor: Actor, token: str, request: Request, body: bytes) -> ApiRequest:
    return ApiRequest(actor, token, request.path_params, request.query_params, body)


def response(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in its form."""
    content = document if isinstance(document, Content) else Content(encode(document), "application/json")
    answer = Response(content.body, status, headers, media_type=content.media_type)
    answer.raw_headers.append(NO_STORE)
    return answer


def address_of(request: Request) -> str:
    """Return by what is known whoever shows no token."""
    user = _at_other_end(request)
    return caller_of_user(user) if user is not None else caller_of(request.client.host if request.client else "")


async def _has_left(request: Request) -> bool:
    """Tell whether the client of a request, whose body was read, has closed the connection."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        return bool((await request.receive())["type"] == "http.disconnect")
    return False
