"""The OpenAPI document of the contract: what is sent, what is answered, and every error with its code."""

import re

from skyctl.api.administration import reading
from skyctl.api.administration import schemas as administration_schemas
from skyctl.api.administration.route import Route
from skyctl.api.administration.table import TABLE
from skyctl.api.schemas import (
    COUNT,
    DRAIN_REQUEST,
    HEARTBEAT_ANSWER,
    MESSAGE,
    PAGE,
    REGISTRATION_ANSWER,
    SCHEMAS,
    SCRIPT,
    SCRIPT_REQUEST,
    TEXT,
    WORKER_ANSWER,
    Document,
    json_object,
    reference,
    success,
)
from skyctl.domain.api_tokens import Role
from skyctl.domain.states import WorkerOrder, WorkerStatus

ERRORS = {
    400: "VALIDATION_ERROR: a field is missing or not acceptable; the message names it",
    401: "UNAUTHORIZED: no token, or one that is not ours, expired, or replaced; INVITATION_EXPIRED",
    403: "FORBIDDEN: a good token, but not for this; TOKEN_REVOKED",
    404: "NOT_FOUND, WORKER_NOT_FOUND, SERVICE_NOT_FOUND, MIGRATION_NOT_FOUND, ORGANIZATION_NOT_FOUND, "
    "TOKEN_NOT_FOUND, AGENT_NOT_FOUND",
    409: "CONFLICT, ENGINE_REFUSED, WORKER_HAS_CONTAINERS, TOKEN_IN_USE, WORKER_CLONED or REBOOT_UNCONFIRMED: a rule "
    "says no; the message names it",
    413: "BODY_TOO_LARGE: over 64 KiB, of a heartbeat over 16 KiB",
    429: "TOO_OFTEN: this host has registered too often within a short time",
    500: "INTERNAL_ERROR: see the log of the manager",
    503: "DATABASE_UNAVAILABLE, ENGINE_UNAVAILABLE, or BUSY: too many wait already; try again",
}


# Whoever may act in a role, by either kind of token: of the API's it is named.
SECURITY: dict[str, list[Document]] = {role.value: [{"adminToken": []}, {"apiToken": [role.value]}] for role in Role}


def _content(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}


def _answers(*, ok: int, what: str, schema: Document, errors: tuple[int, ...]) -> Document:
    answers: Document = {str(ok): {"description": what, "content": _content(schema)}}
    for status in (*errors, 500):
        answers[str(status)] = {"description": ERRORS[status], "content": _content(reference("Error"))}
    retry = {"description": "seconds to wait", "schema": {"type": "integer"}}
    for status in {429, 503}.intersection(errors):
        answers[str(status)]["headers"] = {"Retry-After": retry}
    return answers


def _file(
    summary: str,
    media_type: str,
    what: str,
    *,
    parameters: tuple[Document, ...] = (),
    errors: tuple[int, ...] = (),
    others: Document | None = None,
    scheme: str = "",
) -> Document:
    """Return an operation whose answer is not JSON, for anyone unless a role or a kind of token is named."""
    answers = _answers(ok=200, what=what, schema=TEXT, errors=(413, *errors))
    answers["200"]["content"] = {media_type: {"schema": TEXT}}
    return _operation(summary, scheme, answers | (others or {}), parameters=parameters)


def _operation(
    summary: str,
    token: str,
    answers: Document,
    *,
    parameters: tuple[Document, ...] = (),
    body: Document | None = None,
    body_required: bool = True,
) -> Document:
    operation: Document = {"summary": summary, "responses": answers, "parameters": list(parameters)}
    operation["security"] = SECURITY.get(token, [{token: []}] if token else [])
    if body:
        operation["requestBody"] = {"required": body_required, "content": _content(body)}
    return operation


SHELL = "text/x-shellscript"
AWAY = "The database or the engine does not answer, or too many wait: a script that says so; the link is still good"
GONE = "Used, expired or none: a script that says so on stderr and fails, since it may be piped into a shell"
WORKER_ID: Document = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
NAMING = {each["name"] for each in (reading.WORKER, reading.ORGANIZATION)}
REFERENCE: Document = {"in": "path", "required": True, "schema": TEXT, "description": reading.REFERENCE}
SHA256: Document = {"name": "sha256", "in": "path", "required": True, "schema": TEXT}
SEARCHED = "in name, hostname, address and id; at their beginnings where it ends with *"
AFTER = "only those after this place among the names: the `next` of a page, or a worker"
LIST_PARAMETERS = (
    {"name": "status", "in": "query", "schema": TEXT, "description": f"{reading.SEVERAL}: {', '.join(WorkerStatus)}"},
    {"name": "region", "in": "query", "schema": TEXT, "description": f"{reading.SEVERAL}; empty for none"},
    {"name": "pool", "in": "query", "schema": TEXT, "description": f"{reading.SEVERAL}; empty for none"},
    reading.sort_by(WorkerOrder.NAME),
    {"name": "search", "in": "query", "schema": TEXT, "description": SEARCHED},
    {"name": "after", "in": "query", "schema": TEXT, "description": AFTER},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    {
        "name": "offset",
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999, "default": 0},
    },
)

ADMIN_ERRORS = (400, 401, 403, 413, 503)
ONE_PAGE_ERRORS = (400, 401, 403, 404, 413, 503)
ONE_WORKER_ERRORS = (401, 403, 404, 413, 503)

PATHS: Document = {
    "/api/workers/register": {
        "post": _operation(
            "A host says what it is",
            "workerToken",
            _answers(
                ok=201,
                what="The worker as it is stored",
                schema=REGISTRATION_ANSWER,
                errors=(400, 401, 403, 409, 413, 429, 503),
            ),
            body=reference("Registration"),
        ),
    },
    "/api/workers/{id}/heartbeat": {
        "post": _operation(
            "A worker reports its load",
            "workerToken",
            _answers(ok=200, what="Committed", schema=HEARTBEAT_ANSWER, errors=(400, 401, 403, 404, 413, 503)),
            parameters=(WORKER_ID,),
            body=reference("Heartbeat"),
        ),
    },
    "/api/workers": {
        "get": _operation(
            "Workers, by name",
            Role.VIEWER,
            _answers(ok=200, what="One page", schema=PAGE, errors=ONE_PAGE_ERRORS),
            parameters=LIST_PARAMETERS,
        ),
    },
    "/api/workers/{id}": {
        "get": _operation(
            "One worker",
            Role.VIEWER,
            _answers(ok=200, what="The worker", schema=WORKER_ANSWER, errors=ONE_WORKER_ERRORS),
            parameters=(WORKER_ID,),
        ),
        "delete": _operation(
            "Remove a worker without containers",
            Role.ADMIN,
            _answers(ok=200, what="Removed", schema=MESSAGE, errors=(*ONE_WORKER_ERRORS, 409)),
            parameters=(WORKER_ID,),
        ),
    },
    "/api/workers/{id}/drain": {
        "post": _operation(
            "Ask for a worker to be emptied; until then, and afterwards, it takes nothing new",
            Role.OPERATOR,
            _answers(ok=200, what="Noted", schema=MESSAGE, errors=(400, *ONE_WORKER_ERRORS)),
            parameters=(WORKER_ID,),
            body=DRAIN_REQUEST,
            body_required=False,
        ),
    },
    "/api/workers/{id}/undrain": {
        "post": _operation(
            "Take back that a worker is to be emptied",
            Role.OPERATOR,
            _answers(ok=200, what="Noted", schema=MESSAGE, errors=(400, *ONE_WORKER_ERRORS)),
            parameters=(WORKER_ID,),
            body=DRAIN_REQUEST,
            body_required=False,
        ),
    },
    "/api/workers/generate-script": {
        "post": _operation(
            "Invite a worker",
            Role.ADMIN,
            _answers(ok=200, what="The install script and its token", schema=SCRIPT, errors=(*ADMIN_ERRORS, 409)),
            body=SCRIPT_REQUEST,
            body_required=False,
        ),
    },
    "/api/workers/cluster/status": {
        "get": _operation(
            "The cluster in figures, at most 30 s old",
            Role.VIEWER,
            _answers(ok=200, what="The figures", schema=success(data=reference("Stats")), errors=(401, 403, 413, 503)),
        ),
    },
    "/api/agent/{sha256}": {
        "get": _file(
            "The agent that the answer to a heartbeat offers",
            "application/gzip",
            "Its bytes",
            parameters=(SHA256,),
            errors=(401, 403, 404, 503),
            scheme="workerToken",
        ),
    },
    "/install/{secret}": {
        "get": _file(
            "The install script of a link: once, until it expires",
            SHELL,
            "It, with a token that is issued now",
            parameters=({"name": "secret", "in": "path", "required": True, "schema": TEXT},),
            others={
                str(status): {"description": why, "content": {SHELL: {"schema": TEXT}}}
                for status, why in ((410, GONE), (503, AWAY))
            },
        ),
    },
    "/install/check/{id}/{fingerprint}": {
        "get": _file(
            "What an install script asks first",
            "text/plain",
            "`time SECONDS`, and `invitation` with its state, a line each",
            parameters=(WORKER_ID, {"name": "fingerprint", "in": "path", "required": True, "schema": TEXT}),
            errors=(404, 503),
        ),
    },
    "/install/skyagent.tar.gz": {
        "get": _file("The agent that install scripts carry", "application/gzip", "Its bytes"),
    },
    "/install/skyagent.tar.gz.sha256": {
        "get": _file("Its checksum", "text/plain", "As `sha256sum -c` reads it"),
    },
    "/ca.pem": {
        "get": _file(
            "The certificate of the manager's own authority, to be believed once its fingerprint was compared",
            "application/x-pem-file",
            "It",
            errors=(404,),
        ),
    },
    "/healthz": {
        "get": _operation(
            "The process answers", "", _answers(ok=200, what="It does", schema=json_object(status=TEXT), errors=(413,))
        ),
    },
    "/readyz": {
        "get": _operation(
            "The database answers and has our schema, and nothing that must go on stands still",
            "",
            _answers(
                ok=200,
                what="It does; the database says which installation it is of",
                schema=json_object(status=TEXT, schemaVersion=COUNT, installationId={"type": ["string", "null"]}),
                errors=(413, 503),
            ),
        ),
    },
    "/openapi.json": {
        "get": _operation(
            "This document",
            Role.VIEWER,
            _answers(ok=200, what="It", schema={"type": "object"}, errors=(401, 403, 413, 503)),
        ),
    },
    "/metrics": {
        "get": _file("Prometheus metrics", "text/plain", "Text", errors=(401, 403, 503), scheme=Role.VIEWER)
        | {"security": [*SECURITY[Role.VIEWER], {"metricsToken": []}]},
    },
}


def _described(route: Route) -> Document:
    """Return an operation of the table."""
    parts = re.findall(r"{(\w+)}", route.path)
    errors = (
        400,
        401,
        403,
        413,
        503,
        *[404] * bool(parts or route.by_monitor or NAMING.intersection(each["name"] for each in route.query)),
        *[409] * (route.may_refuse or route.by_monitor),
    )
    if route.stream:
        errors = tuple(status for status in errors if status != 413)  # which every file has
        return _file(
            route.summary,
            "text/event-stream",
            "One after the other, without end",
            parameters=(*route.query,),
            errors=errors,
            scheme=route.role,
        )
    named = [WORKER_ID if part == "id" else {**REFERENCE, "name": part} for part in parts]
    return _operation(
        route.summary,
        route.role,
        _answers(ok=200, what="It", schema=success(data=route.answers), errors=errors),
        parameters=(*named, *route.query),
        body=route.body,
        body_required=bool(route.body and route.body["required"]),
    )


for each in TABLE:
    PATHS.setdefault(each.path, {})[each.method.lower()] = _described(each)

DOCUMENT: Document = {
    "openapi": "3.1.0",
    "info": {"title": "skyctl", "version": "1", "description": "Hosts report here; panels and scripts ask here."},
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS | administration_schemas.SCHEMAS,
        "securitySchemes": {
            "workerToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "a worker's own"},
            "adminToken": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "as the panel signs it; it may do all",
            },
            "apiToken": {
                "type": "http",
                "scheme": "bearer",
                "description": "as `skyctl tokens create` makes it, for what its role may do: viewer, operator, admin",
            },
            "metricsToken": {"type": "http", "scheme": "bearer", "description": "the setting SKYCTL_METRICS_TOKEN"},
        },
    },
}
