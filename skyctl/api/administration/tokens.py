"""Tokens of the API over HTTP, and whose the one is by which is asked."""

from importlib.metadata import version

from skyctl.api.administration import reading
from skyctl.api.administration.route import Route
from skyctl.api.administration.schemas import many, one_of
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import COUNT, PLAIN_NAME, TEXT, TIME, Document, json_object, reference
from skyctl.documents import http
from skyctl.documents.api_tokens import LONGEST_NAME, NEVER, new_token, token_document, tokens_document
from skyctl.domain.api_tokens import Role
from skyctl.operations.admin import api_tokens, tokens, workers
from skyctl.operations.shared import authentication
from skyctl.operations.shared.context import Context


def list_tokens(context: Context, _request: ApiRequest) -> Document:
    """List all tokens."""
    return tokens_document(*api_tokens.list_tokens(context))


def create(context: Context, request: ApiRequest) -> Document:
    """Make a token."""
    said = reading.body(request, "name", "role", "ttl")
    role = reading.choice("role", said.get("role"), Role)
    name, ttl = new_token(("name", reading.text(said, "name")), ("ttl", reading.text(said, "ttl")))
    made, token = api_tokens.create(context, request.actor, name, role, ttl)
    return token_document(made, made.made_at) | {"token": token}


def revoke(context: Context, request: ApiRequest) -> Document:
    """Revoke a token."""
    revoked = api_tokens.revoke(context, request.actor, reading.reference(request))
    return token_document(revoked, workers.read_at(context))


def end_admin_tokens(context: Context, request: ApiRequest) -> Document:
    """Refuse every administrator's token of the panel that was issued so far."""
    return {"issuedBefore": http.moment(tokens.end_admin_tokens(context, request.actor))}


def who_asks(context: Context, request: ApiRequest) -> Document:
    """Say who asks, what they may do, and which version answers."""
    role = authentication.role_of(context, request.token)
    return {"who": request.actor.name, "role": role.value, "version": version("skyctl")}


ROUTES = (
    Route(
        "GET",
        "/api/me",
        Role.VIEWER,
        "Who asks, what they may do, and which version answers",
        who_asks,
        json_object(who=TEXT, role=one_of(Role), version=TEXT),
    ),
    Route(
        "GET",
        "/api/tokens",
        Role.ADMIN,
        "All tokens of the API, also those that are no longer good",
        list_tokens,
        json_object(tokens=many(reference("Token")), total=COUNT, readAt=TIME),
    ),
    Route(
        "POST",
        "/api/tokens",
        Role.ADMIN,
        "Make a token, which is answered once and stored nowhere",
        create,
        {"allOf": [reference("Token"), json_object(token=TEXT)]},
        body=reading.object_of(
            name=PLAIN_NAME | {"maxLength": LONGEST_NAME},
            role=one_of(Role),
            ttl=TEXT | {"description": f"how long it is good: 12h, 90d, or {NEVER} to end"},
        ),
        may_refuse=True,
    ),
    Route(
        "DELETE",
        "/api/tokens/{reference}",
        Role.ADMIN,
        "Revoke a token, by its name or id",
        revoke,
        reference("Token"),
        may_refuse=True,
    ),
    Route(
        "POST",
        "/api/tokens/end-administrators",
        Role.ADMIN,
        "Refuse every token of the panel's administrators that was issued so far; those of the API stay good",
        end_admin_tokens,
        json_object(issuedBefore=TIME),
    ),
)
