"""The HTTP API: the routes of the contract (docs/architecture.md), their authentication, and the shape of errors.

Handlers are ordinary functions on a few threads. Heartbeats do not come this way (see
`http_protocol`), except unusual ones.
"""

import hashlib
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import anyio.from_thread
import anyio.to_thread
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from skyctl.api import metrics, openapi
from skyctl.api.heartbeats import HeartbeatBatches, accepted, answer_with_reply
from skyctl.api.responses import NO_STORE, Content, bearer_token, encode, error_answer, error_document, read_body
from skyctl.documents import http
from skyctl.domain.addresses import client_address
from skyctl.domain.cluster import Actor, Heartbeat
from skyctl.domain.errors import SkyctlError, Unauthorized, WorkerNotFound
from skyctl.domain.tokens import REPLY_PENDING
from skyctl.domain.workloads import DrainOptions
from skyctl.operations.admin import drains, schema, workers
from skyctl.operations.agents import heartbeats, install_links, invitations, registration, upgrades
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context

THREADS = 8
MAX_PAGE = 1000
STATS_SECONDS = 30
GZIP, SHELL, TEXT = "application/gzip", "text/x-shellscript", "text/plain"

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


Handler = Callable[[Context, ApiRequest], tuple[int, dict[str, Any] | Content]]


def register(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Register a host, or what has changed of it."""
    said = replace(http.registration(http.parse(request.body)), came_from=_came_from(request.actor))
    worker = registration.register(context, request.token, said)
    return 201, {"success": True, "data": http.worker_document(worker)}


def _came_from(client: Actor) -> str:
    """Return the address from which a request came; that of no host where it is not known, since what a host says of
    its address itself must not take its place."""
    try:
        return str(ipaddress.ip_address((client.ip_address or "").partition("%")[0]))
    except ValueError:
        return "0.0.0.0"


def report_load(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Store a heartbeat that did not come the short way, as a batch of one."""
    load = http.heartbeat(http.parse(request.body))
    heartbeat = Heartbeat(str(request.worker_id), heartbeats.fingerprint(request.token), load)
    outcome = anyio.from_thread.run(heartbeats.record, context, [heartbeat])[0]
    if isinstance(outcome, Unauthorized):
        outcome = heartbeats.why_refused(context, request.worker_id, request.token)
    if isinstance(outcome, SkyctlError):
        raise outcome
    return 200, answer_with_reply(context, heartbeat) if outcome is REPLY_PENDING else accepted(context)


def list_workers(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """List one page of workers."""
    query = request.query
    page = workers.list_workers(
        context,
        status=http.status(query["status"]) if query.get("status") else None,
        search=http.text_filter("search", query["search"]) if query.get("search") else None,
        limit=http.whole_number("limit", query.get("limit"), 100, 1, MAX_PAGE),
        offset=http.whole_number("offset", query.get("offset"), 0, 0, http.MAX_COUNT),
    )
    pagination = {"total": page.total, "limit": page.limit, "offset": page.offset}
    data = [http.worker_document(worker) for worker in page.workers]
    return 200, {"success": True, "data": data, "pagination": pagination}


def show_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Show one worker."""
    return 200, {"success": True, "data": http.worker_document(workers.get(context, request.worker_id))}


def remove_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Remove a worker without containers."""
    worker, _ = workers.remove(context, request.worker_id, request.actor)
    return 200, {"success": True, "message": f"Worker {worker.name} removed"}


def drain_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Ask for a worker to be emptied."""
    worker = drains.drain(context, [request.worker_id], request.actor, DrainOptions(http.drain_request(request.body)))[
        0
    ]
    return 200, {"success": True, "message": f"Worker {worker.name} is set to drain"}


def undrain_worker(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """End the drain of a worker, which then takes containers again."""
    worker = drains.undrain(context, request.worker_id, request.actor, http.drain_request(request.body))
    return 200, {"success": True, "message": f"Worker {worker.name} is back in service"}


def generate_script(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Invite a worker: its install script, and a link to it."""
    document = http.parse(request.body) if request.body else {}
    name, insecure = http.script_request(document)
    invitation, script = invitations.generate_script(context, request.actor, name, insecure=insecure)
    return 200, {
        "success": True,
        "data": {
            "workerId": str(invitation.worker_id),
            "script": script,
            "token": invitation.token,
            "link": install_links.make(context, request.actor, invitation.worker_id, insecure=insecure),
        },
    }


def agent_archive(context: Context, request: ApiRequest) -> tuple[int, Content]:
    """Send the agent that a worker was offered."""
    return 200, Content(upgrades.archive(context, request.token, request.path["sha256"]), GZIP)


def install_script(context: Context, request: ApiRequest) -> tuple[int, Content]:
    """Send the script of a link. It may be piped into a shell, so an error is a script as well, which says why and
    fails."""
    try:
        return 200, Content(install_links.redeem(context, request.actor, request.path["secret"]).encode(), SHELL)
    except SkyctlError as error:
        return error.http_status, Content(install_links.refusal(error).encode(), SHELL)


def check_invitation(context: Context, request: ApiRequest) -> tuple[int, Content]:
    """Send the time and the state of an invitation, as lines that any shell can read."""
    now, state = install_links.check(context, request.worker_id, request.path["fingerprint"])
    return 200, Content(f"time {int(now.timestamp())}\ninvitation {state}\n".encode(), TEXT)


def installed_agent(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the agent that install scripts carry."""
    return 200, Content(install_links.archive(), GZIP)


def installed_agent_checksum(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the checksum of that agent, as `sha256sum -c` reads it."""
    checksum = hashlib.sha256(install_links.archive()).hexdigest()
    return 200, Content(f"{checksum}  skyagent.tar.gz\n".encode(), TEXT)


def stats(context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Show the cluster in figures."""
    return 200, {"success": True, "data": http.stats_document(workers.stats(context))}


class Cached:
    """A handler whose answer is the same for everyone; it is kept for some seconds."""

    def __init__(self, handler: Handler, seconds: float) -> None:
        self._handler, self._seconds = handler, seconds
        self._answer: tuple[int, dict[str, Any] | Content] = (0, {})
        self._valid_until = 0.0

    def __call__(self, context: Context, request: ApiRequest) -> tuple[int, dict[str, Any] | Content]:
        """Return the handler's answer, of now or of some seconds ago."""
        if time.monotonic() >= self._valid_until:
            self._answer = self._handler(context, request)
            self._valid_until = time.monotonic() + self._seconds
        return self._answer


def ready(context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Say that the database answers and has our schema, and which installation it is of."""
    state = schema.check(context)
    if not state.complete:
        return 503, error_document("SCHEMA_INCOMPLETE", "run `skyctl db init`")
    installation_id = str(state.installation_id) if state.installation_id else None
    return 200, {"status": "ready", "schemaVersion": state.version, "installationId": installation_id}


def specification(_context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Send the OpenAPI document."""
    return 200, openapi.DOCUMENT


def prometheus(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the metrics in Prometheus' text format."""
    return 200, Content(metrics.render(), metrics.MEDIA_TYPE)


ROUTES: dict[str, dict[str, tuple[str, Handler]]] = {
    "/api/workers/register": {"POST": ("worker", register)},
    "/api/workers/generate-script": {"POST": ("admin", generate_script)},
    "/api/workers/cluster/status": {"GET": ("admin", stats)},
    "/api/workers/{id}/heartbeat": {"POST": ("worker", report_load)},
    "/api/workers/{id}/drain": {"POST": ("admin", drain_worker)},
    "/api/workers/{id}/undrain": {"POST": ("admin", undrain_worker)},
    "/api/workers/{id}": {"GET": ("admin", show_worker), "DELETE": ("admin", remove_worker)},
    "/api/workers": {"GET": ("admin", list_workers)},
    "/api/agent/{sha256}": {"GET": ("worker", agent_archive)},
    "/install/check/{id}/{fingerprint}": {"GET": ("anyone", check_invitation)},
    "/install/skyagent.tar.gz": {"GET": ("anyone", installed_agent)},
    "/install/skyagent.tar.gz.sha256": {"GET": ("anyone", installed_agent_checksum)},
    "/install/{secret}": {"GET": ("anyone", install_script)},
    "/readyz": {"GET": ("anyone", ready)},
    "/openapi.json": {"GET": ("admin", specification)},
    "/metrics": {"GET": ("metrics", prometheus)},
}


class Application:
    """The ASGI application, and what connections hand heartbeats to (`heartbeats`)."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.heartbeats = HeartbeatBatches(context)
        threads = anyio.CapacityLimiter(THREADS)
        cached = {"/api/workers/cluster/status": {"GET": ("admin", Cached(stats, STATS_SECONDS))}}
        routes = [Route(path, Endpoint(context, threads, path, methods)) for path, methods in (ROUTES | cached).items()]
        routes += [Route("/healthz", healthy, methods=["GET"])]
        self._others = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _unexpected})
        self._others.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._others(scope, receive, send)


class Endpoint:
    """The ASGI application of one path: find the method, authenticate, read, run the handler on a thread, answer."""

    def __init__(
        self, context: Context, threads: anyio.CapacityLimiter, path: str, methods: Mapping[str, tuple[str, Handler]]
    ) -> None:
        self._context, self._threads, self._path, self._methods = context, threads, path, methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if request.method not in self._methods:
            raise HTTPException(405, headers={"Allow": ", ".join(self._methods)})
        who, handler = self._methods[request.method]
        headers: Mapping[str, str] = {}
        document: dict[str, Any] | Content
        try:
            token = "" if who == "anyone" else bearer_token(scope["headers"]).decode("latin-1")
            handle = partial(self._handle, who, handler, token, request, await read_body(scope, receive))
            status, document = await anyio.to_thread.run_sync(handle, limiter=self._threads)
        except ClientDisconnect:
            return
        except SkyctlError as error:
            status, document, headers = error_answer(error)
            if status >= 500:
                log.warning("action=request_failed path=%s reason=%s", self._path, error.message)
        REQUESTS.labels(request.method, self._path, status).inc()
        if isinstance(document, Content):
            answer = Response(document.body, status, headers, media_type=document.media_type)
        else:
            answer = Response(encode(document), status, headers, media_type="application/json")
        answer.raw_headers.append(NO_STORE)
        await answer(scope, receive, send)

    def _handle(
        self, who: str, handler: Handler, token: str, request: Request, body: bytes
    ) -> tuple[int, dict[str, Any] | Content]:
        client = client_address(request.client.host if request.client else None)
        agent = request.headers.get("user-agent")
        actor = Actor("", None, client, agent)
        if who == "admin":
            actor = authentication.administrator(self._context, token, client, agent)
        elif who == "metrics":
            authentication.reader_of_metrics(self._context, token)
        return handler(self._context, ApiRequest(actor, token, request.path_params, request.query_params, body))


async def healthy(_request: Request) -> Response:
    """Say that the process answers, whether or not the database does."""
    return Response(encode({"status": "ok"}), media_type="application/json")


def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    codes = {404: ("NOT_FOUND", "there is no such route"), 405: ("METHOD_NOT_ALLOWED", "the route has other methods")}
    code, message = codes.get(status, ("VALIDATION_ERROR", "the request cannot be read"))
    headers = getattr(error, "headers", None)
    return Response(encode(error_document(code, message)), status, headers, media_type="application/json")


def _unexpected(_request: Request, _error: Exception) -> Response:
    body = encode(error_document("INTERNAL_ERROR", "unexpected error: see the log of skyctl serve"))
    return Response(body, 500, media_type="application/json")
