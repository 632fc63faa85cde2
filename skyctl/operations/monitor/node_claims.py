"""Find out with the engine whether workers' claims of swarm nodes are true. Until one is confirmed, nothing is placed
on such a worker, and its node is neither paused nor removed."""

from collections.abc import Sequence
from contextlib import suppress

from skyctl.domain.cluster import Event
from skyctl.domain.engine import NodeClaim
from skyctl.domain.errors import EngineUnavailable
from skyctl.domain.event_details import ClaimedNode
from skyctl.domain.events import EventKind
from skyctl.operations.shared.leadership import Term
from skyctl.rules import node_claims as rules
from skyctl.rules import node_matches as matching
from skyctl.rules.node_claims import CONFIRMED, ClaimVerdict, Standing
from skyctl.store import db, drains, events, node_matches
from skyctl.store import node_claims as store


def check_claims(term: Term, *, all_of_them: bool) -> list[Event]:
    """Judge the claims that nobody has looked at, or all that are not confirmed; return the events.

    Workers whose agents say no node are matched with one before, where all are looked at. Where the engine does not
    answer they stay as they are: health, and what follows from it, does not wait for that. Raises LostLead,
    DatabaseUnavailable.
    """
    if all_of_them:
        _match(term)
    with term.reading() as tx:
        db.prefer_indexes(tx)
        claims = store.unconfirmed(tx, only_new=not all_of_them)
        holders = store.holders(tx, {claim.node_id for claim in claims})
    if not claims:
        return []
    with suppress(EngineUnavailable):
        verdicts = rules.judge(claims, term.observe(()).nodes, holders)
        return _write(term, [pair for pair in zip(claims, verdicts, strict=True) if _is_news(*pair)])
    return []


def _match(term: Term) -> None:
    """Claim nodes for workers whose agents say none."""
    with term.reading() as tx:
        places = node_matches.places(tx) if node_matches.has_silent(tx) else []
    if not places:
        return
    with suppress(EngineUnavailable):
        matched = matching.match(places, term.observe(()).nodes)
        found = {worker_id: match.node_id for worker_id, match in matched.items() if match.node_id}
        if found:
            with term.writing() as tx:
                drains.hold_heartbeats(tx)
                node_matches.claim(tx, found, untold=[each for each in found if matched[each].trouble])


def _is_news(claim: NodeClaim, verdict: ClaimVerdict) -> bool:
    is_to_be_told = verdict.standing is Standing.CONTRADICTS and not claim.is_refuted
    return verdict == CONFIRMED or verdict.trouble != claim.trouble or is_to_be_told


def _write(term: Term, news: Sequence[tuple[NodeClaim, ClaimVerdict]]) -> list[Event]:
    if not news:
        return []
    with term.recording() as tx:
        drains.hold_heartbeats(tx)
        confirmed = [claim for claim, verdict in news if verdict == CONFIRMED and store.confirm(tx, claim)]
        refused = [(claim, verdict) for claim, verdict in news if verdict != CONFIRMED]
        store.refuse(tx, {claim.worker_id: verdict.trouble for claim, verdict in refused}, [c for c, _ in refused])
        refuted = [
            (claim, verdict)
            for claim, verdict in refused
            if verdict.standing is Standing.CONTRADICTS and not claim.is_refuted
        ]
        store.note_refuted(tx, [claim.worker_id for claim, _ in refuted])
        return events.append(
            tx,
            *(_event(term, EventKind.NODE_CONFIRMED, claim) for claim in confirmed),
            *(_event(term, EventKind.NODE_REFUTED, claim, verdict.trouble) for claim, verdict in refuted),
        )


def _event(term: Term, kind: EventKind, claim: NodeClaim, reason: str = "") -> Event:
    details = ClaimedNode(swarmNodeId=claim.node_id)
    return Event(kind, claim.worker_id, claim.worker_name, "monitor", reason=reason, details=details, term=term.number)
