"""Admission of hosts whose tokens are good for them: many at once, in a few statements."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from skyctl.documents import http
from skyctl.domain.cluster import Event, Outage, Registration, Worker
from skyctl.domain.errors import DatabaseUnavailable, Forbidden, SkyctlError, Unauthorized, ValidationError
from skyctl.domain.event_details import Joined
from skyctl.domain.events import EventKind
from skyctl.domain.tokens import Credentials, HostIdentity, Identity, TokenState
from skyctl.operations.agents import token_refusals, upgrades
from skyctl.operations.shared import token_issue
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.outages import known_outages
from skyctl.rules import clocks, health, identity, names, tokens
from skyctl.store import db, events, registrations, workers
from skyctl.store import tokens as stored_tokens
from skyctl.store.registrations import Admission, Known


class Admitted(NamedTuple):
    """A worker whose host was let in, and the token that it is to use from now on, if there is one (a secret)."""

    worker: Worker
    new_token: str | None


class Asked(NamedTuple):
    """A host that asks to be let in: its token's claims and fingerprint, and what it says of itself, in plain words."""

    claims: tokens.WorkerClaims
    token_hash: str
    registration: Registration

    @property
    def host(self) -> HostIdentity:
        """What the registration says of the machine itself."""
        said = self.registration
        values = (said.metadata.get(key) for key in ("machineId", "bootId", "instanceId"))
        machine, boot, instance = (value if isinstance(value, str) else "" for value in values)
        return HostIdentity(machine, boot, instance, said.hostname, said.ip_address)


def ask(context: Context, token: str, registration: Registration, now: datetime) -> Asked:
    """Return what a host asks. Raises Unauthorized, Forbidden where the token is not ours, or not a worker's."""
    claims = tokens.verify_worker_token(context.keys.accepted(now), token, now)
    said = _with_clock_offset(names.with_plain_hostname(claims.worker_id, registration), now)
    return Asked(claims, tokens.fingerprint(token), said)


def check_metadata(before: Worker, said: Registration) -> None:
    """Raise ValidationError where what is kept of a worker would become too large; what was kept before may stay."""
    after = {**before.metadata, **said.metadata}
    if len(json.dumps(after)) > len(json.dumps(dict(before.metadata))):
        http.check_metadata(after)


def admit(
    context: Context, requests: Sequence[tuple[str, Registration]]
) -> list[Admitted | DatabaseUnavailable | None]:
    """Let in the hosts that hold their worker's present token on its machine, where nobody else is changing the worker
    right now; return each that was, None for one who is to be judged alone (`registration.register`).

    There is one transaction for those of whom nothing is to be told, and another, with the log locked, for the others:
    a fleet that comes back costs little more than its heartbeats, and who has to wait for something keeps no other.
    Where the log cannot be had, those of the second get that error.
    """
    with context.db.transaction() as tx:
        asked = _ordinary(context, tx, requests)
    quiet = [each for each, tells in asked if not tells]
    telling = [each for each, tells in asked if tells]
    admitted: dict[str, Admitted | DatabaseUnavailable] = {**_admit(context, quiet)}
    try:
        admitted |= _admit(context, telling, tells=True)
    except DatabaseUnavailable as error:
        admitted |= {each.token_hash: error for each in telling}
    # of one worker the first alone was stored: what comes after it may say something else
    return [admitted.pop(tokens.fingerprint(token), None) for token, _ in requests]


def heard_silence(known: Credentials, now: datetime, outages: Sequence[Outage]) -> timedelta | None:
    """Return for how long a worker would have been heard, had it said anything; None where it never said anything."""
    signs = [at for at in (known.last_heartbeat_at, known.bound_at) if at]
    return health.heard_silence(max(signs), now, outages) if signs else None


def let_in(context: Context, tx: db.Transaction, hosts: Sequence[tuple[Asked, Known]]) -> dict[UUID, Admitted]:
    """Store what hosts say, bind their tokens to them, and tell what is new; return them by their workers' ids. The
    workers must be locked, and the log where something is to be told."""
    now = db.now(tx)
    admissions = [_admission(context, asked, known, now) for asked, known in hosts]
    stored = registrations.store(tx, admissions)
    news = [_joined(stored[known.worker.id]) for asked, known in hosts if _is_elsewhere(asked, known)]
    settled = [event for worker in stored.values() if (event := upgrades.settled(worker))]
    if settled:
        workers.withdraw_agents(tx, [event.worker_id for event in settled if event.worker_id])
    events.append(tx, *news, *settled)
    db.notify_news(tx)
    admitted = {}
    for (asked, known), admission in zip(hosts, admissions, strict=True):
        worker = stored[known.worker.id]
        waiting = admission.next_token or known.credentials.next_token
        takes = waiting if _takes_tokens(asked.registration) else None
        admitted[worker.id] = Admitted(worker, takes and token_issue.handed_over(context, worker.id, takes, now))
    return admitted


def _ordinary(
    context: Context, tx: db.Transaction, requests: Sequence[tuple[str, Registration]]
) -> list[tuple[Asked, bool]]:
    """Return the hosts of whom there is nothing to judge, one of each worker, and whether something is to be told."""
    now, outages = db.now(tx), known_outages(tx)
    all_asked: dict[UUID, Asked] = {}
    for token, registration in requests:
        try:
            asked = ask(context, token, registration, now)
        except SkyctlError:
            continue  # it is refused alone
        all_asked.setdefault(asked.claims.worker_id, asked)
    known = registrations.known(tx, all_asked)
    forgotten = [(asked, True) for worker_id, asked in all_asked.items() if worker_id not in known]
    return forgotten + [
        (asked, _tells(asked, known[worker_id]))
        for worker_id, asked in all_asked.items()
        if worker_id in known and _is_ordinary(context, asked, known[worker_id], now, outages)
    ]


def _admit(context: Context, all_asked: Sequence[Asked], *, tells: bool = False) -> dict[str, Admitted]:
    """Let in those of them who still are what they were; return them by their tokens' fingerprints."""
    if not all_asked:
        return {}
    with context.db.transaction() as tx:
        if tells:
            db.limit_lock_waits(tx)
            events.lock(tx)
            _remember(tx, all_asked)
        now, outages = db.now(tx), known_outages(tx)
        known = registrations.known(tx, [asked.claims.worker_id for asked in all_asked], lock=True)
        hosts = [
            (asked, its)
            for asked in all_asked
            if (its := known.get(asked.claims.worker_id))
            and _is_ordinary(context, asked, its, now, outages)
            and (tells or not _tells(asked, its))
        ]
        admitted = let_in(context, tx, hosts) if hosts else {}
    return {asked.token_hash: admitted[asked.claims.worker_id] for asked, _ in hosts}


def _remember(tx: db.Transaction, all_asked: Sequence[Asked]) -> None:
    """Make the workers that the database does not know, as after a restored backup, unless they are to be refused. The
    log must be locked."""
    known = registrations.known(tx, [asked.claims.worker_id for asked in all_asked])
    for asked in all_asked:
        worker_id = asked.claims.worker_id
        with suppress(Unauthorized, Forbidden, ValidationError):  # it is refused alone
            if worker_id not in known:
                http.check_metadata(asked.registration.metadata)
                remember(tx, asked)


def remember(tx: db.Transaction, asked: Asked) -> None:
    """Make the worker of a token that we signed, whom the database does not know. Raises Forbidden, Unauthorized where
    that is to be refused."""
    worker_id = asked.claims.worker_id
    token_refusals.refuse_removed(tx, worker_id)
    token_refusals.refuse_former(tx, asked.claims.key, db.now(tx))
    workers.insert_invited(tx, worker_id, names.invited(worker_id), asked.token_hash, asked.claims.expires_at)


def _is_ordinary(context: Context, asked: Asked, known: Known, now: datetime, outages: Sequence[Outage]) -> bool:
    """Tell whether a host has its worker's present token, which is good, on its machine."""
    credentials = known.credentials
    state = identity.token_state(credentials, asked.token_hash)
    try:
        token_refusals.refuse_unusable(credentials, state, now)
        check_metadata(known.worker, asked.registration)
    except SkyctlError:
        return False
    silence = heard_silence(credentials, now, outages)
    verdict = identity.identify(credentials, asked.host, silence, context.health.heartbeat_interval)
    return state is TokenState.CURRENT and verdict is Identity.SAME


def _tells(asked: Asked, known: Known) -> bool:
    return _is_elsewhere(asked, known) or known.worker.agent_offered is not None


def _is_elsewhere(asked: Asked, known: Known) -> bool:
    before, said = known.worker, asked.registration
    return (before.hostname, before.ip_address) != (said.hostname, said.ip_address)


def _admission(context: Context, asked: Asked, known: Known, now: datetime) -> Admission:
    claims, said, held, host = asked.claims, asked.registration, known.credentials, asked.host
    moved = bool(held.holder.machine_id) and not identity.is_at_home(held.holder, host)
    return Admission(
        claims.worker_id,
        names.registered(known.worker, said.hostname),
        said,
        host,
        held.expires_at if held.holder.hostname else claims.expires_at,  # an invitation that is used ends no more
        claims.key.id,
        # the next token, which it takes at once, tells this host from another that still holds this one, and was not
        # heard while we were away
        token_issue.following(context, claims.worker_id, now) if moved and _takes_tokens(said) else None,
    )


def _takes_tokens(said: Registration) -> bool:
    return said.metadata.get(stored_tokens.TAKES_TOKENS) is True


def _joined(worker: Worker) -> Event:
    details = Joined(hostname=worker.hostname, ipAddress=worker.ip_address)
    return Event(EventKind.REGISTERED, worker.id, worker.name, actor=f"worker:{worker.name}", details=details)


def _with_clock_offset(registration: Registration, now: datetime) -> Registration:
    """Return the registration with the time that the host's clock showed replaced by its distance from the database's.
    Only the doctor reads it."""
    metadata = {key: value for key, value in registration.metadata.items() if key not in ("clock", clocks.OFFSET)}
    offset = clocks.offset_seconds(registration.metadata.get("clock"), now)
    return replace(registration, metadata=metadata if offset is None else {**metadata, clocks.OFFSET: offset})
