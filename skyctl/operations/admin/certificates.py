"""The certificate that `skyctl serve` shows: make it, renew it, note that in the log."""

from collections.abc import Iterable
from datetime import UTC, datetime

from skyctl.domain.cluster import Actor, Event
from skyctl.domain.errors import DatabaseRefused, DatabaseUnavailable
from skyctl.domain.events import EventKind, NewCertificate
from skyctl.host.certificates import Certificates
from skyctl.operations.shared.context import Context
from skyctl.store import events

SERVE = Actor("serve")


def initialize(certificates: Certificates, names: Iterable[str], *, renew: bool) -> bool:
    """Make the authority and the server's certificate where one is missing; return whether anything was made."""
    return certificates.make(names, datetime.now(UTC), renew=renew)


def renew_if_due(context: Context, certificates: Certificates) -> bool:
    """Renew the server's certificate where it is about to end; return whether it was renewed."""
    renewed = certificates.renew_if_due(datetime.now(UTC))
    if renewed:
        note(context, certificates, SERVE)
    return renewed


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
