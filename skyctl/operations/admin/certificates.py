"""The certificate that `skyctl serve` shows: make it, renew it, note that in the log."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

from skyctl.domain.cluster import Actor, Event
from skyctl.domain.errors import DatabaseRefused, DatabaseUnavailable, Refused
from skyctl.domain.event_details import NewCertificate
from skyctl.domain.events import EventKind
from skyctl.host.certificates import Certificates, is_late
from skyctl.operations.shared.context import Context
from skyctl.store import certificate_requests, db, events

SERVE = Actor("serve")


def initialize(certificates: Certificates, names: Iterable[str], *, renew: bool) -> bool:
    """Make the authority and the server's certificate where one is missing; return whether anything was made."""
    return certificates.make(names, datetime.now(UTC), renew=renew)


class Renewal(StrEnum):
    """How far the renewal of the server's certificate is."""

    NOT_DUE = "not due"
    ASKED = "asked"
    RENEWED = "renewed"


def renew_if_due(context: Context, certificates: Certificates) -> Renewal:
    """Renew the server's certificate where it is about to end: sign it where this user holds the authority's key, else
    ask the monitor, and take over what it has signed.

    Raises Refused where the monitor does not sign it, SkyctlError where a certificate cannot be used.
    """
    now = datetime.now(UTC)
    if not certificates.is_due(now):
        return Renewal.NOT_DUE
    if certificates.can_sign:
        if not certificates.renew_if_due(now):
            return Renewal.NOT_DUE
        note(context, certificates, SERVE)
        return Renewal.RENEWED
    answer = _ask(context, certificates.request())
    if answer.refusal:
        certificates.withdraw()
        raise Refused(f"the monitor does not sign a new certificate: {answer.refusal}", "see `skyctl tls show`")
    if answer.certificate is None:
        return Renewal.ASKED
    if is_late(answer.certificate, now):  # of a request of long ago
        certificates.withdraw()
        return Renewal.ASKED
    certificates.adopt(answer.certificate)
    return Renewal.RENEWED


def _ask(context: Context, request: str) -> certificate_requests.Answer:
    """Ask the monitor to sign this request, where it was not asked before; return its answer."""
    request_id = hashlib.sha256(request.encode()).hexdigest()
    with context.db.transaction() as tx:
        if certificate_requests.ask(tx, request_id, request):
            db.notify_news(tx)
        return certificate_requests.answer(tx, request_id) or certificate_requests.Answer(None, None)


def note(context: Context, certificates: Certificates, actor: Actor) -> bool:
    """Write the event of a certificate that was made; return whether the database could take it."""
    server = certificates.inspect()[-1]
    details = NewCertificate(
        names=list(server.names), endsAt=server.ends_at.isoformat(), fingerprint=server.fingerprint
    )
    try:
        with context.db.transaction() as tx:
            events.lock(tx)
            reason = f"good until {server.ends_at:%Y-%m-%d}"
            events.record(
                tx, Event(EventKind.CERTIFICATE_MADE, None, None, actor.name, reason=reason, details=details), actor
            )
    except (DatabaseUnavailable, DatabaseRefused):
        return False
    return True
