"""Links to install scripts: make one, give its script once, and answer what the script asks before it begins."""

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from skyctl import installer
from skyctl.domain.cluster import Actor, Event, Invitation, Worker
from skyctl.domain.errors import LinkGone, SkyctlError
from skyctl.domain.event_details import Deadline, Fetched
from skyctl.domain.events import EventKind
from skyctl.domain.text import quoted, reference
from skyctl.domain.tokens import Credentials, TokenState
from skyctl.operations.agents import invitations
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.swarm_join import worker_join
from skyctl.rules import identity, tokens
from skyctl.store import db, events, install_links, workers
from skyctl.store import tokens as stored_tokens

SECRET_BYTES = 32
AGAIN = "make a new invitation: skyctl workers install-script"
# As the script's own codes, see docs/operations.md
AWAY, EXPIRED, USED, UNKNOWN = 21, 24, 25, 26


def invite(
    context: Context,
    actor: Actor,
    name: str | None = None,
    *,
    insecure: bool = False,
    ttl: timedelta = invitations.INVITATION_TTL,
    existing_id: UUID | None = None,
) -> tuple[UUID, str]:
    """Invite a new worker, or a host for the worker `existing_id`, by a link alone; return its id, and the link.

    Raises Refused as `invitations.generate_script` does.
    """
    invitations.check_transport(context, insecure=insecure)
    worker_id = existing_id or invitations.invite(context, actor, name, ttl).worker_id
    return worker_id, make(context, actor, worker_id, insecure=insecure, ttl=ttl, replaces_host=existing_id is not None)


def make(
    context: Context,
    actor: Actor,
    worker_id: UUID,
    *,
    insecure: bool,
    ttl: timedelta = invitations.INVITATION_TTL,
    replaces_host: bool = False,
) -> str:
    """Make a link that gives the script of an invited worker, once and within `ttl`; only the SHA-256 of its secret is
    stored.

    Raises WorkerNotFound.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    with context.db.transaction() as tx:
        worker = lookup.lock_worker(tx, worker_id)
        expires_at = db.now(tx) + ttl
        install_links.insert(
            tx,
            tokens.fingerprint(secret),
            install_links.Link(worker_id, context.api_url, insecure, replaces_host, actor.name, expires_at),
        )
        details = Deadline(expiresAt=expires_at.isoformat())
        events.record(tx, Event(EventKind.LINK_MADE, worker_id, worker.name, actor.name, details=details), actor)
    return f"{context.api_url}/install/{secret}"


def command(context: Context, link: str) -> str:
    """Return what is pasted into root's shell on a host: it fetches the script and runs it. Our authority goes along.

    Without curl's --fail: the answer in place of a script is a script that says why, and fails.
    """
    authority = context.authority(link).strip()
    if not authority:
        return f"curl -sS {quoted(link)} | sh\n"
    return f"curl -sS --cacert /dev/fd/3 {quoted(link)} 3<<'CA' | sh\n{authority}\nCA\n"


def redeem(context: Context, actor: Actor, secret: str) -> str:
    """Return the script of a link, with a token that is issued now and replaces the invitation's; the link is used
    up.

    Raises LinkGone, or EngineUnavailable where nobody tells how hosts join the swarm: then the link is still good.
    """
    key = tokens.fingerprint(secret)
    with context.db.transaction() as tx:
        link, _ = _good(tx, key)
    join = worker_join(context)
    with context.db.transaction() as tx:
        events.lock(tx)
        link, worker = _good(tx, key)
        token, _ = tokens.issue_worker_token(context.keys.signing().secret, worker.id, link.made_by, db.now(tx))
        install_links.use(tx, key)
        store_token = stored_tokens.invite if link.anew else install_links.renew
        store_token(tx, worker.id, tokens.fingerprint(token), link.expires_at)
        details = Fetched(ipAddress=actor.ip_address) if actor.ip_address else Fetched()
        events.record(tx, Event(EventKind.LINK_USED, worker.id, worker.name, "install link", details=details), actor)
    as_made = replace(context, api_url=link.api_url)
    return invitations.write_script(as_made, Invitation(worker.id, token), join, insecure=link.insecure, by_link=True)


def refusal(error: SkyctlError) -> str:
    """Return a shell script in place of one that is not given: it says why and fails."""
    code = error.script_code if isinstance(error, LinkGone) else AWAY
    return installer.refusal(code, error.message, error.hint)


def check(context: Context, worker_id: UUID, fingerprint: str) -> tuple[datetime, str]:
    """Return the time and the state of an invitation, which an install script asks for before it changes its host.

    The state is `good`, `expired`, `used`, `removed`, or `unknown` where another token took its place. The invitation
    is named by the SHA-256 of its token, which gives nobody access, so anybody may ask.
    """
    with context.db.transaction() as tx:
        now, worker, stored = db.now(tx), workers.get(tx, worker_id), stored_tokens.get(tx, worker_id)
        if worker is None or stored is None:
            return now, "removed" if events.was_removed(tx, worker_id) else "unknown"
        return now, _state(identity.token_state(stored, fingerprint), stored, worker, now)


def _state(token_state: TokenState, stored: Credentials, worker: Worker, now: datetime) -> str:
    if token_state is TokenState.STALE or (stored.revoked_at and token_state is not TokenState.INVITATION):
        return "unknown"
    if token_state is not TokenState.INVITATION and _has_joined(worker):
        return "used"
    until = stored.invitation_expires_at if token_state is TokenState.INVITATION else stored.expires_at
    return "expired" if until is not None and until <= now else "good"


def _good(tx: db.Transaction, key: str) -> tuple[install_links.Link, Worker]:
    """Return the link and its worker, while the link is good. Raises LinkGone."""
    link = install_links.get(tx, key)
    worker = workers.get(tx, link.worker_id, lock=True) if link else None
    if link is None or worker is None or (worker.token_revoked_at and not link.anew):
        raise LinkGone("there is no such link, or its worker was removed or revoked", AGAIN, UNKNOWN)
    if link.used_at is not None or (_has_joined(worker) and not link.anew):
        raise LinkGone("this link has been used", f"each is good once; {_again(worker)}", USED)
    if link.expires_at <= db.now(tx):
        raise LinkGone("this link has expired", _again(worker), EXPIRED)
    return link, worker


def _again(worker: Worker) -> str:
    return f"make another one: skyctl workers install-script --worker {reference(worker.name, worker.id)} --link"


def _has_joined(worker: Worker) -> bool:
    """Tell whether a host has registered as this worker, or sent a heartbeat with its token."""
    return bool(worker.hostname or worker.last_heartbeat_at)
