"""Tokens: replace or revoke a worker's, replace the secret that signs them, end those of administrators."""

from datetime import datetime, timedelta
from uuid import UUID

from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.errors import Refused
from skyctl.domain.event_details import Ended, NewSecret
from skyctl.domain.events import EventKind
from skyctl.domain.text import reference
from skyctl.operations.shared import lookup, token_issue
from skyctl.operations.shared.context import Context
from skyctl.store import db, events, install_links, installation, tokens


def rotate(context: Context, worker_id: UUID, actor: Actor) -> Worker:
    """Replace a worker's token: the answer to its next heartbeat carries the new one; the old one is good until the new
    one was used.

    Raises WorkerNotFound, or Refused where the worker's agent cannot take a new token.
    """
    with context.db.transaction() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        known = tokens.get(tx, worker_id)
        if worker.token_revoked_at:
            raise Refused(f"the token of {worker.name} is revoked", _invite_again(worker))
        if not (known and known.takes_tokens):
            raise Refused(f"the agent of {worker.name} cannot take a new token", _invite_again(worker))
        token_issue.replace_token(context, tx, worker_id)
        events.record(tx, Event(EventKind.TOKEN_ROTATION_ASKED, worker_id, worker.name, actor.name), actor)
        return worker


def revoke(context: Context, worker_id: UUID, actor: Actor, reason: str | None = None) -> Worker:
    """Revoke every token of a worker, from its next heartbeat on, and every link that was made for it so far.

    Raises WorkerNotFound, Refused where its token is revoked already.
    """
    with context.db.transaction() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        if worker.token_revoked_at:
            raise Refused(f"the token of {worker.name} is revoked already", _invite_again(worker))
        tokens.revoke(tx, worker_id, reason)
        install_links.withdraw(tx, worker_id)
        events.record(
            tx, Event(EventKind.TOKEN_REVOKED, worker_id, worker.name, actor.name, reason=reason or ""), actor
        )
        return worker


def rotate_secret(context: Context, actor: Actor, overlap: timedelta) -> tuple[datetime, int]:
    """Sign tokens by a new secret. Return until when tokens of the present one are accepted, and how many workers
    cannot take a new token by themselves; all others get one meanwhile.

    Raises Refused where the secret was set.
    """
    with context.db.transaction() as tx:
        events.lock(tx)
        now = db.now(tx)
        context.keys.rotate(now, now + overlap)
        details = NewSecret(acceptedUntil=(now + overlap).isoformat(), keyId=context.keys.signing().id)
        events.record(tx, Event(EventKind.SECRET_ROTATED, None, None, actor.name, details=details), actor)
        return now + overlap, tokens.without_successor(tx)


def _invite_again(worker: Worker) -> str:
    return f"invite its host anew: skyctl workers install-script --worker {reference(worker.name, worker.id)}"


def end_admin_tokens(context: Context, actor: Actor) -> datetime:
    """Refuse every administrator's token that was issued so far, from the next request on, also those that do not say
    when they were; return the moment."""
    with context.recording() as tx:
        now = db.now(tx)
        installation.end_admin_tokens(tx, now)
        details = Ended(issuedBefore=now.isoformat())
        events.record(tx, Event(EventKind.ADMIN_TOKENS_ENDED, None, None, actor.name, details=details), actor)
    return now
