"""Upgrades of agents: an administrator offers the manager's own agent, a worker's takes it, or gives it up."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import NamedTuple
from uuid import UUID

from skyctl import installer
from skyctl.documents import http
from skyctl.domain.cluster import Actor, Event, Worker
from skyctl.domain.errors import AgentNotFound, Unauthorized
from skyctl.domain.event_details import AgentVersion
from skyctl.domain.events import EventKind
from skyctl.domain.states import Upgrade
from skyctl.domain.tokens import TokenState
from skyctl.operations.agents import release_keys, token_refusals
from skyctl.operations.shared.context import Context
from skyctl.rules import identity, releases, tokens
from skyctl.store import db, drains, events, workers
from skyctl.store import tokens as stored_tokens

LONGEST_REASON, LONGEST_VERSION = 500, 64
MOST_AT_ONCE = 1000  # whoever else writes events waits meanwhile
NEW_SCRIPT = "run a new install script on the host"
NO_LAUNCHER = f"its agent cannot replace itself: {NEW_SCRIPT}"
NO_KEY = f"its host has pinned no key of releases, so it cannot tell a good one: {NEW_SCRIPT}"
OTHER_KEY = f"its host has pinned another key of releases: {NEW_SCRIPT}"
PLAIN_HTTP = "it reports over plain HTTP, by which it takes no upgrade: see SKYCTL_API_URL, and " + NEW_SCRIPT


@dataclass(frozen=True, slots=True)
class AgentRelease:
    """An agent that workers may upgrade to: the tar.gz, its SHA-256, and what it calls itself."""

    version: str
    sha256: str
    archive: bytes = field(repr=False)

    def __str__(self) -> str:
        return _named(self.version, self.sha256)


class Upgraded(NamedTuple):
    """The result for one worker, with the reason where it is impossible."""

    worker: Worker
    outcome: Upgrade
    reason: str = ""

    @property
    def why(self) -> str:
        """The reason in words; empty for none."""
        return self.reason if self.worker.hostname or not self.reason else "it has not joined yet"

    @property
    def document(self) -> dict[str, str]:
        """The result as JSON."""
        return {
            "id": str(self.worker.id),
            "name": self.worker.name,
            "outcome": self.outcome.value,
            "reason": self.why,
        }


@cache
def release() -> AgentRelease:
    """Return the agent of this version of skyctl."""
    archive = installer.agent_archive()
    return AgentRelease(version("skyctl"), hashlib.sha256(archive).hexdigest(), archive)


def upgrade(context: Context, actor: Actor, only: Collection[UUID] | None, *, dry_run: bool = False) -> list[Upgraded]:
    """Offer the manager's agent to these workers, or to all; return what comes of it for each. Their agents take it
    with the next heartbeat.

    A worker whose agent gave it up before is offered it again only where it is named. Raises Refused where the key of
    releases, by which it is signed, is not here.
    """
    ours, key = release(), context.release_key if dry_run else release_keys.signing(context)
    public = key.public() if key and key.is_here else ""
    with context.db.transaction() as tx:
        planned = [_planned(worker, ours, public, named=only is not None) for worker in workers.everyone(tx, only)]
    offered = [plan.worker.id for plan in planned if plan.outcome is Upgrade.OFFERED]
    if key and offered and not dry_run:
        signature = key.sign(releases.statement(ours.version, ours.sha256, len(ours.archive)))
        for first in range(0, len(offered), MOST_AT_ONCE):
            _offer(context, actor, offered[first : first + MOST_AT_ONCE], signature)
    return planned


def _offer(context: Context, actor: Actor, worker_ids: Collection[UUID], signature: str) -> None:
    ours = release()
    details = AgentVersion(version=ours.version, sha256=ours.sha256)
    with context.db.transaction() as tx:
        events.lock(tx)
        offers = [
            Event(
                EventKind.AGENT_UPGRADE_OFFERED, worker.id, worker.name, actor.name, reason=str(ours), details=details
            )
            for worker in workers.everyone(tx, worker_ids)
        ]
        events.record_all(tx, offers, actor)
        drains.hold_heartbeats(tx)  # for as long as the last statement takes
        workers.offer_agent(tx, worker_ids, ours.sha256, signature)


def offer(worker: Worker) -> Mapping[str, object] | None:
    """Return what the answer to a worker's heartbeat says of an agent; None where the offered one is not ours any
    more, or is not signed."""
    ours = release()
    if worker.agent_offered != ours.sha256 or worker.agent_signature is None:
        return None
    return {
        "sha256": ours.sha256,
        "version": ours.version,
        "size": len(ours.archive),
        "offeredAt": http.moment(worker.agent_offered_at),
        "signature": worker.agent_signature,
    }


def archive(context: Context, token: str, sha256: str) -> bytes:
    """Return the agent of this checksum, for a worker. Raises Unauthorized, Forbidden, AgentNotFound."""
    with context.db.transaction() as tx:
        now = db.now(tx)
        known = stored_tokens.get(tx, tokens.verify_worker_token(context.keys.accepted(now), token, now).worker_id)
        token_state = identity.token_state(known, tokens.fingerprint(token)) if known else TokenState.STALE
        if known:
            token_refusals.refuse_unusable(known, token_state, now)
    if token_state not in (TokenState.CURRENT, TokenState.NEXT):
        raise Unauthorized("the token is not this worker's", "agents fetch with the token that they beat with")
    if sha256 != release().sha256:
        raise AgentNotFound("there is no agent of this checksum", "offer the present one: skyctl workers upgrade")
    return release().archive


def settled(worker: Worker) -> Event | None:
    """Return what became of the agent that a worker was offered, as it says by its registration; None where it says
    nothing of it."""
    if worker.agent_offered is None:
        return None
    failed = worker.metadata.get("agentUpgradeFailed")
    order = {"sha256": worker.agent_offered, "offeredAt": http.moment(worker.agent_offered_at)}
    if worker.metadata.get("agentSha256") == worker.agent_offered:
        version = str(worker.metadata.get("agentVersion"))[:LONGEST_VERSION]
        return _settled(worker, EventKind.AGENT_UPGRADED, _named(version, worker.agent_offered))
    if isinstance(failed, dict) and order.items() <= failed.items():
        return _settled(worker, EventKind.AGENT_UPGRADE_FAILED, str(failed.get("reason"))[:LONGEST_REASON])
    return None


def _settled(worker: Worker, kind: EventKind, reason: str) -> Event:
    details = AgentVersion(version=worker.metadata.get("agentVersion"), sha256=worker.agent_offered)
    return Event(kind, worker.id, worker.name, f"worker:{worker.name}", reason=reason, details=details)


def _named(version: str, sha256: str) -> str:
    return f"{version} ({sha256[:12]})"


def _planned(worker: Worker, ours: AgentRelease, key: str, *, named: bool) -> Upgraded:
    failed = worker.metadata.get("agentUpgradeFailed")
    if worker.metadata.get("agentSha256") == ours.sha256:
        return Upgraded(worker, Upgrade.UP_TO_DATE)
    if not worker.metadata.get("agentSha256"):
        return Upgraded(worker, Upgrade.IMPOSSIBLE, NO_LAUNCHER)
    if worker.metadata.get("plainHttp") is True:
        return Upgraded(worker, Upgrade.IMPOSSIBLE, PLAIN_HTTP)
    if pinned := worker.metadata.get("releaseKey"):
        if pinned != key:
            return Upgraded(worker, Upgrade.IMPOSSIBLE, OTHER_KEY)
    else:
        return Upgraded(worker, Upgrade.IMPOSSIBLE, NO_KEY)
    if isinstance(failed, dict) and failed.get("sha256") == ours.sha256 and not named:
        reason = str(failed.get("reason"))[:LONGEST_REASON]
        return Upgraded(worker, Upgrade.IMPOSSIBLE, f"it gave it up ({reason}): name it to have it tried again")
    return Upgraded(worker, Upgrade.OFFERED)
