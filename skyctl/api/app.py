"""The HTTP API: the routes of the contract (docs/architecture.md), their authentication, and the shape of errors.

Handlers are ordinary functions on a few threads. Heartbeats do not come this way (see
`http_protocol`), except unusual ones.
"""

import logging
import re
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
from skyctl.api.administration import panel, table
from skyctl.api.endpoint import Endpoint, address_of, response
from skyctl.api.gates import REGISTRATIONS_AT_ONCE, REGISTRATIONS_WAITING, Gates
from skyctl.api.heartbeats import HeartbeatBatches, accepted, answers_with_replies
from skyctl.api.operation import Answer, ApiRequest, Content, Handler, Limit, Operation, Together
from skyctl.api.responses import SHORT, encode, error_answer, error_document
from skyctl.documents import http
from skyctl.documents.heartbeats import parse_heartbeat
from skyctl.domain.cluster import Registration
from skyctl.domain.errors import DatabaseUnavailable, SkyctlError, Unauthorized
from skyctl.domain.shortages import shortage
from skyctl.domain.tokens import REPLY_PENDING
from skyctl.host import vital
from skyctl.host.condition import Condition, unexpected
from skyctl.operations.admin import schema
from skyctl.operations.agents import admission, heartbeats, install_links, invitations, registration, upgrades
from skyctl.operations.agents.admission import Admitted
from skyctl.operations.shared.context import Context

STATS_SECONDS = 30
NOBODYS_ADDRESS = "0.0.0.0"
REGISTRATIONS = Limit(at_once=10, seconds=6.0)
GZIP, SHELL, TEXT, PEM = "application/gzip", "text/x-shellscript", "text/plain", "application/x-pem-file"

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
    heartbeat = parse_heartbeat(http.parse(request.body), str(request.worker_id), fingerprint)
    outcome = anyio.from_thread.run(heartbeats.record, context, [heartbeat])[0]
    if isinstance(outcome, Unauthorized):
        outcome = heartbeats.why_refused(context, request.worker_id, request.token)
    if isinstance(outcome, SkyctlError):
        raise outcome
    return 200, answers_with_replies(context, [heartbeat])[0] if outcome is REPLY_PENDING else accepted(context)


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


def authority(context: Context, _request: ApiRequest) -> Answer:
    """Send the certificate of our own authority. It is believed by its fingerprint alone."""
    pem = context.certificates.authority_pem() if context.certificates else ""
    return (200, Content(pem.encode(), PEM)) if pem else (404, error_document("NOT_FOUND", "no authority of our own"))


class Cached:
    """A handler whose answer is the same for everyone; it is kept for some seconds."""

    def __init__(self, handler: Handler, seconds: float) -> None:
        self._handler, self._seconds = handler, seconds
        self._answer: Answer = (0, {})
        self._valid_until = 0.0

    def __call__(self, context: Context, request: ApiRequest, /) -> Answer:
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

PANELS: dict[str, dict[str, Operation]] = {
    **panel.OPERATIONS,
    "/api/workers/register": {"POST": Operation("worker", register, limit=REGISTRATIONS, together=TOGETHER)},
    "/api/workers/generate-script": {"POST": Operation("admin", generate_script)},
    "/api/workers/{id}/heartbeat": {"POST": Operation("worker", report_load)},
    "/api/agent/{sha256}": {"GET": Operation("worker", agent_archive)},
    "/install/check/{id}/{fingerprint}": {"GET": Operation("anyone", check_invitation)},
    "/install/skyagent.tar.gz": {"GET": Operation("public", installed_agent)},
    "/install/skyagent.tar.gz.sha256": {"GET": Operation("public", installed_agent_checksum)},
    "/install/{secret}": {"GET": Operation("anyone", install_script, no_script)},
    "/readyz": {"GET": Operation("probe", ready)},
    "/openapi.json": {"GET": Operation("viewer", specification)},
    "/metrics": {"GET": Operation("metrics", prometheus)},
}

ADMINISTRATION = table.operations()
ROUTES: dict[str, dict[str, Operation]] = {
    path: PANELS.get(path, {}) | ADMINISTRATION.get(path, {})
    # a path with a word comes before one with a parameter there, which would take it
    for path in sorted({**PANELS, **ADMINISTRATION}, key=lambda path: [part[:1] == "{" for part in path.split("/")])
}

_BASE = re.compile("(?:/+api(?=/))*/*")
_OF_API = {path.split("/")[2] for path in ROUTES if path.startswith("/api/")}


def without_base(path: str) -> str:
    """Return a path as the routes have it. A client whose base address ends in /api says that twice, or before a route
    that is none of the API's; one that ends in a slash doubles that."""
    base = _BASE.match(path)
    rest = path[base.end() :] if base else path
    is_of_api = base is not None and "api" in base[0] and rest.partition("/")[0] in _OF_API
    return f"/api/{rest}" if is_of_api else f"/{rest}"


class Application:
    """The ASGI application, and what connections hand heartbeats to (`heartbeats`)."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._gates = Gates()
        self.heartbeats = HeartbeatBatches(context, self._gates)
        own = {
            "/api/workers/cluster/status": {"GET": Operation("viewer", Cached(panel.stats, STATS_SECONDS))},
            "/healthz": {"GET": Operation("alive", healthy)},
            "/ca.pem": {"GET": Operation("public", Cached(authority, STATS_SECONDS))},
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
        await self._others({**scope, "path": without_base(scope["path"])}, receive, send)

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
