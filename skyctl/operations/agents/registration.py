"""Registration of hosts: whether a host may be the worker whose token it has, and what is stored of it."""

import json
import math
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from skyctl.documents import http
from skyctl.domain.cluster import Event, Registration, Worker
from skyctl.domain.errors import (
    Forbidden,
    RebootUnconfirmed,
    SkyctlError,
    TokenInUse,
    Unauthorized,
    WorkerCloned,
)
from skyctl.domain.events import Address, Cloned, EventKind, Joined
from skyctl.domain.text import reference
from skyctl.domain.tokens import Credentials, HostIdentity, Identity, IssuedToken, TokenState
from skyctl.operations.agents import token_refusals, upgrades
from skyctl.operations.shared import lookup, token_issue
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import clocks, health, identity, names, tokens
from skyctl.store import db, events, workers
from skyctl.store import tokens as stored_tokens


def authorize(
    context: Context, tx: db.Transaction, claims: tokens.WorkerClaims, token_hash: str, registration: Registration
) -> SkyctlError | None:
    """Admit a host as the worker that its token names, or return a refusal that is to be raised after the commit,
    since something was noted of it. The log must be locked. Raises Unauthorized, Forbidden, where nothing is to be
    noted."""
    worker_id, now, host = claims.worker_id, db.now(tx), host_identity(registration)
    if not workers.exists(tx, worker_id):
        token_refusals.refuse_removed(tx, worker_id)
        token_refusals.refuse_former(tx, claims.key, now)
        workers.insert_invited(tx, worker_id, names.invited(worker_id), token_hash, claims.expires_at)
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
    elif token_state is TokenState.NEXT and known.next_token:
        stored_tokens.promote(tx, worker_id, known.next_token.issued_at + tokens.WORKER_LIFETIME)
        events.append(tx, Event(EventKind.TOKEN_ROTATED, worker_id, worker.name, f"worker:{worker.name}"))
    else:
        unused = not known.holder.hostname
        stored_tokens.settle(tx, worker_id, claims.expires_at if unused else known.expires_at, claims.key.id)
    stored_tokens.bind(tx, worker_id, host)
    moved = bool(known.holder.machine_id) and not identity.is_at_home(known.holder, host)
    takes_tokens = registration.metadata.get(stored_tokens.TAKES_TOKENS) is True
    if takes_tokens and moved and token_state is not TokenState.INVITATION:
        # the next token tells this host from another that still holds the token, and was not heard while we were away
        token_issue.replace_token(context, tx, worker_id)
    return None


def host_identity(registration: Registration) -> HostIdentity:
    """Return what a registration says of the machine itself."""
    values = (registration.metadata.get(key) for key in ("machineId", "bootId", "instanceId"))
    machine, boot, instance = (value if isinstance(value, str) else "" for value in values)
    return HostIdentity(machine, boot, instance, registration.hostname, registration.ip_address)


def _recognize(
    context: Context, tx: db.Transaction, worker: Worker, known: Credentials, host: HostIdentity
) -> SkyctlError | None:
    """Return why a host is not this worker's; None where it is. A claimant is noted, and reported once."""
    now, interval = db.now(tx), context.health.heartbeat_interval
    signs = [at for at in (known.last_heartbeat_at, known.bound_at) if at]
    silence = health.heard_silence(max(signs), now, known_outages(tx)) if signs else None
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


def register(context: Context, token: str, registration: Registration) -> Worker:
    """Store what a host says of itself. Its token must be ours, a worker's, and good for that worker on that machine.

    A token that we signed for a worker that the database does not know (it was restored from a backup, or the panel
    issued the token) makes that worker; the token of a removed worker does not. A swarm node that it says it is
    counts once the monitor has confirmed that. Raises Unauthorized, Forbidden.
    """
    with context.db.transaction() as tx:
        now = db.now(tx)
        claims = tokens.verify_worker_token(context.keys.accepted(now), token, now)
        registration = names.with_plain_hostname(claims.worker_id, registration)
        _refuse_at_once(tx, claims.worker_id, tokens.fingerprint(token), now)
        if before := workers.get(tx, claims.worker_id):
            _check_metadata(before, _with_clock_offset(registration, now))
        events.lock(tx)
        refusal = authorize(context, tx, claims, tokens.fingerprint(token), registration)
        if refusal is None:
            return _store(tx, claims.worker_id, registration)
    raise refusal  # after the commit of what was noted of it


def _refuse_at_once(tx: db.Transaction, worker_id: UUID, token_hash: str, now: datetime) -> None:
    """Refuse a token that was revoked, has expired, or is of a worker that was removed before the log is locked, for
    which all others would wait; it is judged again under the lock. Raises Unauthorized, Forbidden."""
    known = stored_tokens.get(tx, worker_id)
    if known is None:
        token_refusals.refuse_removed(tx, worker_id)
    else:
        token_refusals.refuse_unusable(known, identity.token_state(known, token_hash), now)


def _store(tx: db.Transaction, worker_id: UUID, registration: Registration) -> Worker:
    before = lookup.get_worker(tx, worker_id)
    stored = _with_clock_offset(registration, db.now(tx))
    _check_metadata(before, stored)
    workers.set_registration(tx, worker_id, names.registered(before, registration.hostname), stored)
    after = lookup.get_worker(tx, worker_id)
    if (before.hostname, before.ip_address) != (after.hostname, after.ip_address):
        details = Joined(hostname=registration.hostname, ipAddress=registration.ip_address)
        events.append(
            tx, Event(EventKind.REGISTERED, worker_id, after.name, actor=f"worker:{after.name}", details=details)
        )
    upgrades.settle(tx, after)
    db.notify_news(tx)
    return after


def _check_metadata(before: Worker, said: Registration) -> None:
    """Raise ValidationError where what is kept of a worker would become too large; what was kept before may stay."""
    after = {**before.metadata, **said.metadata}
    if len(json.dumps(after)) > len(json.dumps(dict(before.metadata))):
        http.check_metadata(after)


def _with_clock_offset(registration: Registration, now: datetime) -> Registration:
    """Return the registration with the time that the host's clock showed replaced by its distance from the database's.
    Only the doctor reads it."""
    metadata = {key: value for key, value in registration.metadata.items() if key not in ("clock", clocks.OFFSET)}
    offset = clocks.offset_seconds(registration.metadata.get("clock"), now)
    return replace(registration, metadata=metadata if offset is None else {**metadata, clocks.OFFSET: offset})
