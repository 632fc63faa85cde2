"""Tokens: JSON Web Tokens (HS256) as the panel signs them, and the comparison with the stored SHA-256.

A worker's token is `{workerId, type: "worker", generatedBy, generatedAt, exp}`, an administrator's
`{userId, email, iat, exp}`. They are signed by keys of their own; the panel, and versions before, sign both by one.
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
LONGEST_ADMIN_LIFETIME = timedelta(days=30)
CLOCKS_DIFFER = timedelta(seconds=60)
LAST_SECOND = 253_402_300_799
ROTATION = "rotation"
SIGN_IN_AGAIN = "sign in to the panel as an administrator"
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
    key, claims = _claims(keys, token, now, INVITE_AGAIN)
    if claims.get("type") != "worker":
        raise Forbidden("the token is not a worker's", INVITE_AGAIN)
    expiry = _time(claims, "exp", INVITE_AGAIN)
    expires_at = datetime.fromtimestamp(expiry, now.tzinfo) if expiry is not None else None
    return WorkerClaims(_uuid(claims.get("workerId"), INVITE_AGAIN), expires_at, key)


def verify_admin_token(keys: Sequence[Key], token: str, now: datetime, issued_from: datetime | None = None) -> UUID:
    """The id of the user whose token it is, if it was not issued before `issued_from`, by a clock that may be ahead.
    Raises Unauthorized (not ours, expired, without an end, ended) or Forbidden (a worker's)."""
    key, claims = _claims(keys, token, now, SIGN_IN_AGAIN)
    if "type" in claims or key.workers_only:
        raise Forbidden("the token is not an administrator's", SIGN_IN_AGAIN)
    expiry, issued = _time(claims, "exp", SIGN_IN_AGAIN), _time(claims, "iat", SIGN_IN_AGAIN)
    most = LONGEST_ADMIN_LIFETIME
    if expiry is None:
        raise Unauthorized("the token has no exp, so that it would never end", SIGN_IN_AGAIN)
    if issued is not None and issued > (now + CLOCKS_DIFFER).timestamp():
        raise Unauthorized("the token's iat is in the future", f"{SIGN_IN_AGAIN}; see the clocks of panel and manager")
    if expiry - (now.timestamp() if issued is None else issued) > (most + CLOCKS_DIFFER).total_seconds():
        raise Unauthorized(f"the token is good for more than {most.days} days", "have it issued with an earlier exp")
    if issued_from is not None and (issued is None or issued < (issued_from + CLOCKS_DIFFER).timestamp()):
        raise Unauthorized("all tokens issued before were ended by an administrator", SIGN_IN_AGAIN)
    return _uuid(claims.get("userId"), SIGN_IN_AGAIN)


class Holder(NamedTuple):
    """Whom a token was signed for: a worker or an administrator, and which one, as the token says it."""

    is_worker: bool
    id: str


def signed_for(keys: Sequence[Key], token: str) -> Holder | None:
    """Whose token one of these keys signed; None where none did. Whether it is still good is not asked: that takes the
    database's clock."""
    try:
        claims = next((claims for key in keys if (claims := _signed(key, token)) is not None), None)
    except RecursionError:  # a head of thousands of levels
        return None
    if claims is None:
        return None
    is_worker = claims.get("type") == "worker"
    return Holder(is_worker, str(claims.get("workerId" if is_worker else "userId")))


def fingerprint(token: str | bytes) -> str:
    """The SHA-256 hex of a token: all that is stored of it."""
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode("utf-8", "surrogateescape")).hexdigest()


def same(fingerprint_a: str, fingerprint_b: str) -> bool:
    """Compare two fingerprints in constant time."""
    return hmac.compare_digest(fingerprint_a.encode(), fingerprint_b.encode())


def _sign(secret: str, claims: dict[str, Any]) -> str:
    with warnings.catch_warnings(category=jwt.InsecureKeyLengthWarning, action="ignore"):
        return jwt.encode(claims, secret, algorithm=ALGORITHM)


def _claims(keys: Sequence[Key], token: str, now: datetime, remedy: str) -> tuple[Key, dict[str, Any]]:
    """The key that signed a token, and its claims, if it is good at `now`; the library's own clock is not asked."""
    signed = ((key, _signed(key, token)) for key in keys)
    key, claims = next(((key, claims) for key, claims in signed if claims is not None), (None, None))
    if key is None or claims is None:
        raise Unauthorized("the token was not issued by this manager", remedy)
    expiry, begin = _time(claims, "exp", remedy), _time(claims, "nbf", remedy)
    if expiry is not None and expiry <= now.timestamp():
        raise Unauthorized("the token has expired", remedy)
    if begin is not None and begin > (now + CLOCKS_DIFFER).timestamp():
        raise Unauthorized("the token is not good yet: its nbf is in the future", remedy)
    return key, claims


def _time(claims: dict[str, Any], claim: str, remedy: str) -> float | None:
    value = claims.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LAST_SECOND:
        raise Unauthorized(f"the token's {claim} is not a time", remedy)
    return value


def _signed(key: Key, token: str) -> dict[str, Any] | None:
    """The claims of a token that this key signed; None where it did not."""
    checks = ("verify_exp", "verify_iat", "verify_nbf", "verify_aud", "verify_sub")
    unchecked: Any = dict.fromkeys(checks, False)
    try:
        with warnings.catch_warnings(category=jwt.InsecureKeyLengthWarning, action="ignore"):
            claims: dict[str, Any] = jwt.decode(token, key.secret, algorithms=[ALGORITHM], options=unchecked)
    except (jwt.PyJWTError, ValueError):
        return None
    return claims


def _uuid(value: object, remedy: str) -> UUID:
    try:
        return UUID(value)  # type: ignore[arg-type]
    except (ValueError, AttributeError, TypeError) as error:
        raise Unauthorized("the token names nobody", remedy) from error
