"""Tokens of the API: the JSON documents, and what is said of one that is to be made."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from skyctl.documents.http import Document, invalid, moment, worker_name
from skyctl.documents.times import duration
from skyctl.domain.api_tokens import ApiToken

LONGEST_NAME = 64
NEVER = "never"


def new_token(name: tuple[str, str], ttl: tuple[str, str]) -> tuple[str, timedelta | None]:
    """Return the name and the length of a token's life, each given with its field's name; None for ever.

    Raises ValidationError that names the field.
    """
    if len(worker_name(name[1], name[0])) > LONGEST_NAME:
        raise invalid(*name, f"at most {LONGEST_NAME} characters")
    return name[1], None if ttl[1] == NEVER else duration(*ttl)


def token_document(token: ApiToken, now: datetime) -> Document:
    """What is known of a token, without its secret."""
    return {
        "id": str(token.id),
        "name": token.name,
        "role": token.role.value,
        "state": token.state(now),
        "madeBy": token.made_by,
        "madeAt": moment(token.made_at),
        "expiresAt": moment(token.expires_at),
        "lastUsedAt": moment(token.last_used_at),
        "lastUsedFrom": token.last_used_from,
        "revokedAt": moment(token.revoked_at),
        "revokedBy": token.revoked_by,
    }


def tokens_document(tokens: Sequence[ApiToken], read_at: datetime) -> Document:
    """Tokens, and when this was read."""
    rows = [token_document(token, read_at) for token in tokens]
    return {"tokens": rows, "total": len(rows), "readAt": moment(read_at)}
