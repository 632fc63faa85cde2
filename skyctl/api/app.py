"""The HTTP API: the routes of the contract (docs/architecture.md), their authentication, and the shape of errors.

Handlers are ordinary functions on a few threads. Heartbeats do not come this way (see
`http_protocol`), except unusual ones.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio.from_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from skyctl.api import metrics, openapi
from skyctl.api.endpoint import Answer, ApiRequest, Endpoint, Handler, Operation, Together, address_of, response
from skyctl.api.gates import REGISTRATIONS_AT_ONCE, REGISTRATIONS_WAITING, Gates
from skyctl.api.heartbeats import HeartbeatBatches, accepted, answers_with_replies
from skyctl.api.limits import Limit
from skyctl.api.responses import SHORT, Content, encode, error_answer, error_document
from skyctl.documents import http
from skyctl.domain.cluster import Registration
from skyctl.domain.errors import DatabaseUnavailable, SkyctlError, Unauthorized
from skyctl.domain.shortages import shortage
from skyctl.domain.tokens import REPLY_PENDING
from skyctl.domain.workloads import DrainOptions
from skyctl.host import vital
from skyctl.host.condition import Condition, unexpected
from skyctl.operations.admin import drains, schema, workers
from skyctl.operations.agents import admission, heartbeats, install_links, invitations, registration, upgrades
from skyctl.operations.agents.admission import Admitted
from skyctl.operations.shared.context import Context

MAX_PAGE = 1000
STATS_SECONDS = 30
NOBODYS_ADDRESS = "0.0.0.0"
REGISTRATIONS = Limit(at_once=10, seconds=6.0)
GZIP, SHELL, TEXT = "application/gzip", "text/x-shellscript", "text/plain"

log = logging.getLogger(__name__)
_TOGETHER = Condition(log, "registrations_apart", "registrations_together")

_SPECIFICATION = Content(encode(openapi.DOCUMENT), "application/json")


def register(context: Context, request: ApiRequest) -> Answer:
    """Register a host, or what has changed of it."""
    return _registered(registration.register(context, request.token, _said(request)))


def register_together(context: Context, requests: Sequence[ApiRequest]) -> list[Answer | SkyctlError | None]:
    """Register the hosts of whom there is nothing to judge; the others are to be registered alone."""
    readable = dict[int, tuple[str, Registration]]()
    for number, request in enumerate(requests):
        with suppress(SkyctlError):
            readable[number] = request.token, _said(request)
    try:
        admitted = dict(zip(readable, admission.admit(context, list(readable.values())), strict=True))
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - because of one of them; it is logged
        _TOGETHER.failed(unexpected(error), len(requests), error=error)
        admitted = {}
    else:
        _TOGETHER.works()
    found = (admitted.get(number) for number in range(len(requests)))
    return [_registered(each) if isinstance(each, Admitted) else each for each in found]


def _said(request: ApiRequest) -> Registration:
    # a host whose address is not known came from that of no host: its own word must not take its place
    came_from = request.actor.ip_address or NOBODYS_ADDRESS
    return replace(http.registration(http.parse(request.body)), came_from=came_from)


def _registered(admitted: Admitted) -> Answer:
    token = {"newToken": admitted.new_token} if admitted.new_token else {}
    return 201, {"success": True, "data": http.worker_document(admitted.worker)} | token


def report_load(context: Context, request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Store a heartbeat that did not come the short way, as a batch of one."""
    fingerprint = heartbeats.fingerprint(request.token)
    heartbeat = http.heartbeat(http.parse(request.body), str(request.worker_id), fingerprint)
    outcome = anyio.from_thread.run(heartbeats.record, context, [heartbeat])[0]
    if isinstance(outcome, Unauthorized):
        outcome = heartbeats.why_refused(context, request.worker_id, request.token)
    if isinstance(outcome, SkyctlError):
        raise outcome
    return 200, answers_with_replies(context, [heartbeat])[0] if outcome is REPLY_PENDING else accepted(context)


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
    """Send the script of a link."""
    return 200, Content(install_links.redeem(context, request.actor, request.path["secret"]).encode(), SHELL)


def no_script(error: SkyctlError) -> Content:
    """Return what is sent in place of a script: it may be piped into a shell, so it is one as well, which says why and
    fails."""
    return Content(install_links.refusal(error).encode(), SHELL)


def check_invitation(context: Context, request: ApiRequest) -> tuple[int, Content]:
    """Send the time and the state of an invitation, as lines that any shell can read."""
    now, state = install_links.check(context, request.worker_id, request.path["fingerprint"])
    return 200, Content(f"time {int(now.timestamp())}\ninvitation {state}\n".encode(), TEXT)


def installed_agent(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the agent that install scripts carry."""
    return 200, Content(upgrades.release().archive, GZIP)


def installed_agent_checksum(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the checksum of that agent, as `sha256sum -c` reads it."""
    return 200, Content(f"{upgrades.release().sha256}  skyagent.tar.gz\n".encode(), TEXT)


def stats(context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Show the cluster in figures."""
    return 200, {"success": True, "data": http.stats_document(workers.stats(context))}


class Cached:
    """A handler whose answer is the same for everyone; it is kept for some seconds."""

    def __init__(self, handler: Handler, seconds: float) -> None:
        self._handler, self._seconds = handler, seconds
        self._answer: tuple[int, dict[str, Any] | Content] = (0, {})
        self._valid_until = 0.0

    def __call__(self, context: Context, request: ApiRequest, /) -> tuple[int, dict[str, Any] | Content]:
        """Return the handler's answer, of now or of some seconds ago."""
        if time.monotonic() >= self._valid_until:
            self._answer = self._handler(context, request)
            self._valid_until = time.monotonic() + self._seconds
        return self._answer


def ready(context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Say that what this process lives by goes on, that the database answers, has our schema and takes writes, and
    which installation it is of."""
    if still := vital.standing_still():
        return 503, error_document("STANDS_STILL", f"what must go on stands still: {', '.join(still)}")
    state = schema.check(context, takes_writes=True)
    if not state.complete:
        return 503, error_document("SCHEMA_INCOMPLETE", "run `skyctl db init`")
    installation_id = str(state.installation_id) if state.installation_id else None
    return 200, {"status": "ready", "schemaVersion": state.version, "installationId": installation_id}


def healthy(_context: Context, _request: ApiRequest) -> tuple[int, dict[str, Any]]:
    """Say that the process answers, whether or not the database does."""
    return 200, {"status": "ok"}


def specification(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the OpenAPI document."""
    return 200, _SPECIFICATION


def prometheus(_context: Context, _request: ApiRequest) -> tuple[int, Content]:
    """Send the metrics in Prometheus' text format."""
    return 200, Content(metrics.render(), metrics.MEDIA_TYPE)


TOGETHER = Together(register_together, REGISTRATIONS_WAITING, REGISTRATIONS_AT_ONCE)

ROUTES: dict[str, dict[str, Operation]] = {
    "/api/workers/register": {"POST": Operation("worker", register, limit=REGISTRATIONS, together=TOGETHER)},
    "/api/workers/generate-script": {"POST": Operation("admin", generate_script)},
    "/api/workers/cluster/status": {"GET": Operation("admin", stats)},
    "/api/workers/{id}/heartbeat": {"POST": Operation("worker", report_load)},
    "/api/workers/{id}/drain": {"POST": Operation("admin", drain_worker)},
    "/api/workers/{id}/undrain": {"POST": Operation("admin", undrain_worker)},
    "/api/workers/{id}": {"GET": Operation("admin", show_worker), "DELETE": Operation("admin", remove_worker)},
    "/api/workers": {"GET": Operation("admin", list_workers)},
    "/api/agent/{sha256}": {"GET": Operation("worker", agent_archive)},
    "/install/check/{id}/{fingerprint}": {"GET": Operation("anyone", check_invitation)},
    "/install/skyagent.tar.gz": {"GET": Operation("public", installed_agent)},
    "/install/skyagent.tar.gz.sha256": {"GET": Operation("public", installed_agent_checksum)},
    "/install/{secret}": {"GET": Operation("anyone", install_script, no_script)},
    "/readyz": {"GET": Operation("probe", ready)},
    "/openapi.json": {"GET": Operation("admin", specification)},
    "/metrics": {"GET": Operation("metrics", prometheus)},
}


class Application:
    """The ASGI application, and what connections hand heartbeats to (`heartbeats`)."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._gates = Gates()
        self.heartbeats = HeartbeatBatches(context, self._gates)
        own = {
            "/api/workers/cluster/status": {"GET": Operation("admin", Cached(stats, STATS_SECONDS))},
            "/healthz": {"GET": Operation("alive", healthy)},
        }
        routes = [
            Route(path, Endpoint(context, self._gates, path, methods)) for path, methods in (ROUTES | own).items()
        ]
        self._others = Starlette(
            routes=routes, exception_handlers={HTTPException: self._http_error, Exception: _unexpected, **SHORTAGES}
        )
        self._others.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._others(scope, receive, send)

    async def _http_error(self, request: Request, error: Exception) -> Response:
        await self._gates.answers_to_strangers.turn(address_of(request))
        status = error.status_code if isinstance(error, HTTPException) else 500
        codes = {
            404: ("NOT_FOUND", "there is no such route"),
            405: ("METHOD_NOT_ALLOWED", "the route has other methods"),
        }
        code, message = codes.get(status, ("VALIDATION_ERROR", "the request cannot be read"))
        return response(status, error_document(code, message), getattr(error, "headers", None))


async def _short(request: Request, error: Exception) -> Response:
    """Answer what there are no files, memory or threads for; it runs on the event loop, for a handler that is no
    coroutine needs a thread."""
    reason = shortage(error)
    if not reason:
        raise error
    log.warning("action=request_failed path=%s reason=%r", request.url.path, reason)
    return response(*error_answer(SHORT))


SHORTAGES = dict.fromkeys((OSError, MemoryError, RuntimeError), _short)


def _unexpected(_request: Request, _error: Exception) -> Response:
    return response(500, error_document("INTERNAL_ERROR", "unexpected error: see the log of skyctl serve"))
