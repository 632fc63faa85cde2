"""Tokens: JSON Web Tokens (HS256) as the panel signs them, and the comparison with the stored SHA-256.

A worker's token is `{workerId, type: "worker", generatedBy, generatedAt, exp}`, an administrator's `{userId, email}`.
"""

import hashlib
import hmac
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import jwt

from skyctl.domain.errors import Forbidden, Unauthorized
from skyctl.domain.tokens import Key

ALGORITHM = "HS256"
WORKER_LIFETIME = timedelta(days=3650)
ADMIN_LIFETIME = timedelta(days=7)
ROTATION = "rotation"
INVITE_AGAIN = "run the install script of a new invitation: skyctl workers install-script"


def issue_worker_token(secret: str, worker_id: UUID, generated_by: str, now: datetime) -> tuple[str, datetime]:
    """A worker's token and when it stops being good."""
    expires_at = now + WORKER_LIFETIME
    generated_at = now.astimezone(UTC).isoformat()  # the same in every time zone, so that a token can be signed again
    claims = {"workerId": str(worker_id), "type": "worker", "generatedBy": generated_by, "generatedAt": generated_at}
    return _sign(secret, claims | {"exp": int(expires_at.timestamp())}), expires_at


def issue_admin_token(secret: str, user_id: UUID, email: str, now: datetime) -> str:
    """An administrator's token, as the panel signs it at login."""
    claims = {"userId": str(user_id), "email": email}
    return _sign(secret, claims | {"iat": int(now.timestamp()), "exp": int((now + ADMIN_LIFETIME).timestamp())})


class WorkerClaims(NamedTuple):
    """The worker of a token, the time it expires, and the key that signed it."""

    worker_id: UUID
    expires_at: datetime | None
    key: Key


def verify_worker_token(keys: Sequence[Key], token: str, now: datetime) -> WorkerClaims:
    """Verify a worker's token and return its claims. Raises Unauthorized (not ours, expired) or Forbidden (not a
    worker's)."""
    key, claims = _claims(keys, token, now)
    if claims.get("type") != "worker":
        raise Forbidden("the token is not a worker's", INVITE_AGAIN)
    expiry = claims.get("exp")
    expires_at = datetime.fromtimestamp(expiry, now.tzinfo) if expiry is not None else None
    return WorkerClaims(_uuid(claims.get("workerId")), expires_at, key)


def verify_admin_token(keys: Sequence[Key], token: str, now: datetime) -> UUID:
    """The id of the user whose token it is. Raises Unauthorized (not ours, expired) or Forbidden (a worker's)."""
    _, claims = _claims(keys, token, now)
    if "type" in claims:
        raise Forbidden("the token is not an administrator's", "sign in to the panel as an administrator")
    return _uuid(claims.get("userId"))


def signed_for(keys: Sequence[Key], token: str) -> str | None:
    """Whose token one of these keys signed, `worker` or `admin`; None where none did. Whether it is still good is not
    asked: that takes the database's clock."""
    try:
        claims = next((claims for key in keys if (claims := _signed(key, token)) is not None), None)
    except RecursionError:  # a head of thousands of levels
        return None
    return None if claims is None else "worker" if claims.get("type") == "worker" else "admin"


def fingerprint(token: str | bytes) -> str:
    """The SHA-256 hex of a token: all that is stored of it."""
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode("utf-8", "surrogateescape")).hexdigest()


def same(fingerprint_a: str, fingerprint_b: str) -> bool:
    """Compare two fingerprints in constant time."""
    return hmac.compare_digest(fingerprint_a.encode(), fingerprint_b.encode())


def _sign(secret: str, claims: dict[str, Any]) -> str:
    with warnings.catch_warnings(category=jwt.InsecureKeyLengthWarning, action="ignore"):
        return jwt.encode(claims, secret, algorithm=ALGORITHM)


def _claims(keys: Sequence[Key], token: str, now: datetime) -> tuple[Key, dict[str, Any]]:
    """The key that signed a token, and its claims, if it is still good at `now`; the library's own clock is not
    asked."""
    signed = ((key, _signed(key, token)) for key in keys)
    key, claims = next(((key, claims) for key, claims in signed if claims is not None), (None, None))
    if key is None or claims is None:
        raise Unauthorized("the token was not issued by this manager", INVITE_AGAIN)
    expiry = claims.get("exp")
    if expiry is None:
        return key, claims
    if isinstance(expiry, bool) or not isinstance(expiry, (int, float)) or not 0 <= expiry <= 253_402_300_799:
        raise Unauthorized("the token's exp is not a time", INVITE_AGAIN)
    if expiry <= now.timestamp():
        raise Unauthorized("the token has expired", INVITE_AGAIN)
    return key, claims


def _signed(key: Key, token: str) -> dict[str, Any] | None:
    """The claims of a token that this key signed; None where it did not."""
    checks = ("verify_exp", "verify_iat", "verify_nbf", "verify_aud", "verify_sub")
    unchecked: Any = dict.fromkeys(checks, False)
    try:
        with warnings.catch_warnings(category=jwt.InsecureKeyLengthWarning, action="ignore"):
            claims: dict[str, Any] = jwt.decode(token, key.secret, algorithms=[ALGORITHM], options=unchecked)
    except (jwt.InvalidTokenError, ValueError):
        return None
    return claims


def _uuid(value: object) -> UUID:
    try:
        return UUID(value)  # type: ignore[arg-type]
    except (ValueError, AttributeError, TypeError) as error:
        raise Unauthorized("the token names nobody", INVITE_AGAIN) from error
