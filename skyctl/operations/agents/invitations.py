"""Invite a host: a worker's row, a token of which only the hash is kept, and the script that carries it."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID, uuid4

from skyctl import installer
from skyctl.domain import addresses
from skyctl.domain.cluster import Actor, Event, Invitation
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.errors import Refused
from skyctl.domain.event_details import Deadline
from skyctl.domain.events import EventKind
from skyctl.domain.text import quoted
from skyctl.operations.agents import release_keys
from skyctl.operations.shared import lookup
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.swarm_join import worker_join
from skyctl.rules import names, tokens, transport
from skyctl.store import db, events, workers
from skyctl.store import tokens as stored_tokens

INVITATION_TTL = timedelta(hours=24)


def invite(context: Context, actor: Actor, name: str | None = None, ttl: timedelta = INVITATION_TTL) -> Invitation:
    """Make a worker that is `pending` until its host registers, and its token, of which only the SHA-256 is stored.

    The host must register within `ttl`. Raises Refused where the name is taken.
    """
    worker_id = uuid4()
    label = name or names.invited(worker_id)
    with context.db.transaction() as tx:
        events.lock(tx)
        if name and workers.named(tx, name):
            again = f"skyctl workers install-script --worker {quoted(name)}, with --link for a link"
            raise Refused(
                f"there is a worker {name!r} already", f"invite its host anew: {again}; or choose another name"
            )
        now = db.now(tx)
        token, _ = tokens.issue_worker_token(context.keys.signing().secret, worker_id, actor.name, now)
        workers.insert_invited(tx, worker_id, label, tokens.fingerprint(token), now + ttl)
        details = Deadline(expiresAt=(now + ttl).isoformat())
        events.record(tx, Event(EventKind.INVITED, worker_id, label, actor.name, details=details), actor)
    return Invitation(worker_id, token)


def invite_again(context: Context, actor: Actor, worker_id: UUID, ttl: timedelta = INVITATION_TTL) -> Invitation:
    """Invite the host of an existing worker again: a reinstalled machine, another one, or after its token was revoked.

    The worker's present token stays good until the new one is used. Raises WorkerNotFound.
    """
    with context.db.transaction() as tx:
        worker, now = lookup.lock_worker(tx, worker_id), db.now(tx)
        token, _ = tokens.issue_worker_token(context.keys.signing().secret, worker_id, actor.name, now)
        stored_tokens.invite(tx, worker_id, tokens.fingerprint(token), now + ttl)
        details = Deadline(expiresAt=(now + ttl).isoformat())
        events.record(tx, Event(EventKind.INVITED_ANEW, worker_id, worker.name, actor.name, details=details), actor)
    return Invitation(worker_id, token)


def generate_script(
    context: Context,
    actor: Actor,
    name: str | None = None,
    *,
    insecure: bool = False,
    ttl: timedelta = INVITATION_TTL,
    existing_id: UUID | None = None,
) -> tuple[Invitation, str]:
    """Invite a new worker, or a host for the worker `existing_id`, and write the script that makes a host this
    worker.

    Raises Refused where the agent would have to send its token unencrypted and that was not allowed, EngineUnavailable
    where nobody tells how hosts join the swarm.
    """
    check_transport(context, insecure=insecure)
    join = worker_join(context)
    invitation = invite_again(context, actor, existing_id, ttl) if existing_id else invite(context, actor, name, ttl)
    return invitation, write_script(context, invitation, join, insecure=insecure)


def check_transport(context: Context, *, insecure: bool) -> None:
    """Raise Refused where an agent would have to send its token unencrypted, and that was not allowed."""
    if not (insecure or transport.transport_is_safe(context.api_url)):
        raise Refused(
            f"{context.api_url} is plain HTTP: agents would send their tokens unencrypted",
            "set SKYCTL_API_URL to an https:// address, or accept the risk: --insecure",
        )


def write_script(
    context: Context, invitation: Invitation, join: SwarmJoin | None, *, insecure: bool, by_link: bool = False
) -> str:
    """Return the script that makes a host the worker that was invited."""
    script = installer.InstallScript(
        worker_id=str(invitation.worker_id),
        token=invitation.token,
        api_url=context.api_url,
        heartbeat_interval_seconds=max(1, round(context.health.heartbeat_interval.total_seconds())),
        insecure=insecure,
        join=join,
        ca_certificate=context.authority(context.api_url),
        by_link=by_link,
        release_key=release_keys.to_pin(context),
    )
    return installer.render(script)


def notes(context: Context) -> Iterator[str]:
    """Say what whoever hands a script on must know."""
    url = context.api_url
    if addresses.is_loopback(url):
        yield f"note: the script reaches the API at {url}, so only from this machine; see SKYCTL_API_URL"
    elif not transport.transport_is_safe(url):
        yield (
            f"warning: {url} is plain HTTP: whoever is on the path reads the token, and a script that is fetched by a "
            "link can be replaced there, so that its host is theirs; the agent takes no upgrades and no new tokens"
        )
    if not release_keys.to_pin(context):
        yield (
            "warning: the key of releases is not here, so the script pins none, and its host takes no upgrades: make "
            "scripts on the machine and as the user who has it"
        )
