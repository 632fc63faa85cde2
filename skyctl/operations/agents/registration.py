"""Registration of hosts: whether a host may be the worker whose token it has, and what is stored of it."""

import math
from datetime import datetime, timedelta

from skyctl.domain.cluster import Event, Registration, Worker
from skyctl.domain.errors import (
    Forbidden,
    RebootUnconfirmed,
    SkyctlError,
    TokenInUse,
    Unauthorized,
    WorkerCloned,
)
from skyctl.domain.event_details import Address, Cloned, Joined
from skyctl.domain.events import EventKind
from skyctl.domain.text import reference
from skyctl.domain.tokens import Credentials, HostIdentity, Identity, IssuedToken, TokenState
from skyctl.operations.agents import admission, token_refusals
from skyctl.operations.agents.admission import Admitted, Asked
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import identity, tokens
from skyctl.store import db, events, registrations, workers
from skyctl.store import tokens as stored_tokens


def authorize(context: Context, tx: db.Transaction, asked: Asked) -> SkyctlError | None:
    """Admit a host as the worker that its token names, or return a refusal that is to be raised after the commit,
    since something was noted of it. The log must be locked. Raises Unauthorized, Forbidden, where nothing is to be
    noted."""
    claims, token_hash, host = asked.claims, asked.token_hash, asked.host
    worker_id, now = claims.worker_id, db.now(tx)
    if not workers.exists(tx, worker_id):
        admission.remember(tx, asked)
    known = stored_tokens.get(tx, worker_id, lock=True)
    worker = workers.get(tx, worker_id)
    if known is None or worker is None:  # the lock of the log keeps it from being removed
        raise Forbidden("this worker was removed", tokens.INVITE_AGAIN)
    token_state = identity.token_state(known, token_hash)
    token_refusals.refuse_unusable(known, token_state, now)
    if token_state is TokenState.INVITATION:
        stored_tokens.accept(tx, worker_id, IssuedToken(token_hash, now, claims.key.id), claims.expires_at)
        details = Joined(hostname=host.hostname, ipAddress=host.ip_address)
        events.append(
            tx, Event(EventKind.INVITATION_USED, worker_id, worker.name, f"worker:{worker.name}", details=details)
        )
    elif refusal := _recognize(context, tx, worker, known, host):
        return refusal
    elif token_state is TokenState.STALE:
        raise Unauthorized("the token is not this worker's", token_refusals.REPLACED)
    elif token_state is TokenState.NEXT:
        stored_tokens.promote(tx, [worker_id], tokens.WORKER_LIFETIME)
        events.append(tx, Event(EventKind.TOKEN_ROTATED, worker_id, worker.name, f"worker:{worker.name}"))
    return None


def _recognize(
    context: Context, tx: db.Transaction, worker: Worker, known: Credentials, host: HostIdentity
) -> SkyctlError | None:
    """Return why a host is not this worker's; None where it is. A claimant is noted, and reported once."""
    now, interval = db.now(tx), context.health.heartbeat_interval
    silence = admission.heard_silence(known, now, known_outages(tx))
    verdict = identity.identify(known, host, silence, interval)
    if verdict is Identity.SAME:
        return None
    holder = known.holder
    held = f"host {holder.hostname} ({holder.ip_address})"
    if verdict is Identity.OTHER_MACHINE:
        return TokenInUse(
            f"the token belongs to {held}, which is another machine than {host.hostname} ({host.ip_address})",
            "each host needs an invitation of its own: skyctl workers install-script; "
            "where this is that host, reinstalled: "
            f"skyctl workers install-script --worker {reference(worker.name, worker.id)}",
        )
    stored_tokens.note_claimants(tx, worker.id, identity.claimants_with(known, host, verdict, now))
    if verdict is Identity.UNCERTAIN:
        wait = identity.SILENT_HEARTBEATS * interval - (silence or timedelta())
        return RebootUnconfirmed(
            f"{held} was heard as this very machine just now",
            "if it was rebooted, it is let in as soon as the one before is known to be silent",
            max(1, math.ceil(wait.total_seconds())),
        )
    before = known.claimants.get(host.place)
    if not (before and before.is_told):
        _report_clone(tx, worker, holder, host)
    return WorkerCloned(
        f"this host, {host.hostname} ({host.ip_address}), is a copy of {held}: "
        "both have the same machine id, and both are alive",
        "give the copy an id of its own (rm /etc/machine-id, then systemd-machine-id-setup) "
        "and an invitation of its own: skyctl workers install-script",
    )


def _report_clone(tx: db.Transaction, worker: Worker, holder: HostIdentity, host: HostIdentity) -> None:
    hosts = Cloned(holder=_address(holder), clone=_address(host))
    reason = (
        f"{host.hostname} ({host.ip_address}) is a copy of {holder.hostname} ({holder.ip_address}), and both are alive"
    )
    events.append(
        tx, Event(EventKind.CLONED, worker.id, worker.name, f"worker:{worker.name}", reason=reason, details=hosts)
    )
    db.notify_news(tx)


def _address(host: HostIdentity) -> Address:
    return Address(hostname=host.hostname, ipAddress=host.ip_address)


def register(context: Context, token: str, registration: Registration) -> Admitted:
    """Store what a host says of itself. Its token must be ours, a worker's, and good for that worker on that machine.

    A token that we signed for a worker that the database does not know (it was restored from a backup, or the panel
    issued the token) makes that worker; the token of a removed worker does not. A swarm node that it says it is
    counts once the monitor has confirmed that. Raises Unauthorized, Forbidden.
    """
    with context.db.transaction() as tx:
        asked = admission.ask(context, token, registration, db.now(tx))
        worker_id = asked.claims.worker_id
        _refuse_at_once(tx, asked, db.now(tx))
        if before := workers.get(tx, worker_id):
            admission.check_metadata(before, asked.registration)
        events.lock(tx)
        refusal = authorize(context, tx, asked)
        if refusal is None:
            [known] = registrations.known(tx, [worker_id], lock=True).values()
            admission.check_metadata(known.worker, asked.registration)
            return admission.let_in(context, tx, [(asked, known)])[worker_id]
    raise refusal  # after the commit of what was noted of it


def _refuse_at_once(tx: db.Transaction, asked: Asked, now: datetime) -> None:
    """Refuse a token that was revoked, has expired, or is of a worker that was removed before the log is locked, for
    which all others would wait; it is judged again under the lock. Raises Unauthorized, Forbidden."""
    known = stored_tokens.get(tx, asked.claims.worker_id)
    if known is None:
        token_refusals.refuse_removed(tx, asked.claims.worker_id)
    else:
        token_refusals.refuse_unusable(known, identity.token_state(known, asked.token_hash), now)
