"""The form of every answer of the API, and reading of a request's body and token."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from skyctl.domain.errors import (
    HINT,
    BodyTooLarge,
    Busy,
    DatabaseUnavailable,
    SchemaMissing,
    SkyctlError,
    Unauthorized,
)
from skyctl.domain.shortages import shortage

MAX_BODY_BYTES = 64 * 1024
RETRY_AFTER_SECONDS = 2
AWAY = "the database does not answer: try again"
SHORT = Busy("this process has no more files, memory or threads to do it with", "try again")
JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")
"""A field of every answer: many hold a token, and none is for a cache."""

Header = tuple[bytes, bytes]


def encode(document: Any) -> bytes:
    """Return a document as JSON."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def error_document(code: str, message: str) -> dict[str, Any]:
    """Return the document that every error has."""
    return {"success": False, "error": {"code": code, "message": message}}


def error_answer(error: SkyctlError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, document and headers of an error; a shortage of ours that is behind it is nobody's error, and over
    soon."""
    if error.http_status != DatabaseUnavailable.http_status and _is_of_shortage(error):
        error = SHORT
    message = f"{error.message}: {error.hint}" if error.hint else error.message
    headers = {HINT: quote(error.hint)} if error.hint else {}
    if error.retry_after_seconds:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, DatabaseUnavailable):
        # the address of the database belongs in the log, not in an answer to anyone
        headers.pop(HINT, None)
        message = (
            "the database lacks what skyctl needs: run `skyctl db init`" if isinstance(error, SchemaMissing) else AWAY
        )
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if error.http_status == Unauthorized.http_status:
        headers["WWW-Authenticate"] = "Bearer"
    return error.http_status, error_document(error.code, message), headers


def _is_of_shortage(error: BaseException) -> bool:
    return bool(shortage(error)) or (error.__cause__ is not None and _is_of_shortage(error.__cause__))


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the whole body. Raises BodyTooLarge as soon as it is over the limit, ClientDisconnect where the client is
    gone before its end."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise too_large()
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise too_large()
    return body


def bearer_token(headers: Iterable[Header], to_get_one: str) -> bytes:
    """Return the token of the Authorization header. Raises Unauthorized, which says what to do for a token."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                return token.strip()
    raise Unauthorized("there is no token", f"send the header Authorization: Bearer TOKEN; to get one, {to_get_one}")


def too_large(most: int = MAX_BODY_BYTES) -> BodyTooLarge:
    """Return the error of a body over the limit."""
    return BodyTooLarge(f"the body is over {most} bytes", "send less")
