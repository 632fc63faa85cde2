"""How an operation reaches the monitor: as `serve` writes it down, and as the monitor reads it."""

import json
from typing import Any
from uuid import UUID

from skyctl.api.operation import ApiRequest
from skyctl.documents import http
from skyctl.domain.api_tokens import Role
from skyctl.domain.cluster import Actor
from skyctl.operations.admin import monitor_requests
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context


def ask(context: Context, route: str, request: ApiRequest) -> Any:
    """Have a monitor run an operation; return the document that it answers. Raises SkyctlError."""
    for where in (request.path, request.query):
        for field, value in where.items():
            http.text_filter(field, value)
    body = http.parse(request.body) if request.body else None
    actor = request.actor
    by = [actor.name, str(actor.user_id) if actor.user_id else None, actor.ip_address, actor.user_agent]
    role = authentication.role_of(context, request.token)
    asked = {"by": by, "role": role, "path": dict(request.path), "query": dict(request.query), "body": body}
    return monitor_requests.ask(context, route, json.dumps(asked))


def read(text: str) -> ApiRequest:
    """Return the request that was written down; the token of who asks is not in it."""
    asked = json.loads(text)
    name, user_id, *client = asked["by"]
    body = b"" if asked["body"] is None else json.dumps(asked["body"]).encode()
    actor = Actor(name, UUID(user_id) if user_id else None, *client)
    return ApiRequest(actor, "", asked["path"], asked["query"], body, Role(asked.get("role", Role.VIEWER)))
