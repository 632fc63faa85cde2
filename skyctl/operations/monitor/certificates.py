"""The leading monitor signs the certificates that `serve` asks for: it holds the authority's key, `serve` does not."""

from datetime import UTC, datetime, timedelta

from skyctl.domain.cluster import Event
from skyctl.domain.errors import SkyctlError
from skyctl.domain.event_details import NewCertificate
from skyctl.domain.events import EventKind
from skyctl.host.certificates import Certificates
from skyctl.operations.shared.leadership import Term
from skyctl.store import certificate_requests, events
from skyctl.store.certificate_requests import Answer

MOST_AT_ONCE = 20
KEPT = timedelta(days=1)
NO_AUTHORITY = "the monitor that leads has no authority: copy its folder `tls` from the host of `skyctl tls init`"


def sign_requested(term: Term, certificates: Certificates) -> list[Event]:
    """Answer the requests that wait, some at a time; return the events. Raises LostLead, DatabaseUnavailable."""
    with term.reading() as tx:
        waiting = certificate_requests.waiting(tx, MOST_AT_ONCE)
    if not waiting:
        return []
    now = datetime.now(UTC)
    answers = [(request_id, *_answer(term, certificates, request, now)) for request_id, request in waiting]
    with term.recording() as tx:
        for request_id, answer, _ in answers:
            certificate_requests.settle(tx, request_id, answer)
        certificate_requests.forget(tx, KEPT)
        return events.append(tx, *(event for _, _, event in answers if event))


def _answer(term: Term, certificates: Certificates, request: str, now: datetime) -> tuple[Answer, Event | None]:
    if not certificates.can_sign:
        return Answer(None, NO_AUTHORITY), None
    try:
        signed, contents = certificates.sign(request, now)
    except SkyctlError as error:
        return Answer(None, f"{error.message}; {error.hint}"), None
    details = NewCertificate(
        names=list(contents.names), endsAt=contents.ends_at.isoformat(), fingerprint=contents.fingerprint
    )
    reason = f"good until {contents.ends_at:%Y-%m-%d}"
    event = Event(EventKind.CERTIFICATE_MADE, None, None, "monitor", reason=reason, details=details, term=term.number)
    return Answer(signed, None), event
