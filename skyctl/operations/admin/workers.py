"""Stories of the administrator: invite, list, look at, drain and remove workers; the cluster in figures."""

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from skyctl import installer
from skyctl.domain.cluster import Actor, ClusterStats, Event, Invitation, SwarmJoin, Worker, WorkerPage, WorkerStatus
from skyctl.domain.errors import (
    EngineRefused,
    EngineUnavailable,
    Forbidden,
    Refused,
    Unauthorized,
    ValidationError,
    WorkerHasContainers,
    WorkerNotFound,
)
from skyctl.domain.tokens import Standing
from skyctl.operations.shared.context import World
from skyctl.rules import identity, names, tokens, transport
from skyctl.rules.tasks import is_on
from skyctl.store import db, events, leases, organizations, workers
from skyctl.store import tokens as stored_tokens

SHORTEST_PREFIX = 4
INVITATION_TTL = timedelta(hours=24)

is_loopback, is_loopback_host = transport.is_loopback, transport.is_loopback_host


def administrator(world: World, token: str, ip_address: str | None = None, user_agent: str | None = None) -> Actor:
    """The administrator whose token it is, and from where they act. Raises Unauthorized, or Forbidden for a user who is
    none."""
    with world.db.transaction() as tx:
        now = db.now(tx)
        user_id = tokens.verify_admin_token(world.keys.accepted(now), token, now)
        user = organizations.email_and_role(tx, user_id)
    if user is None:
        raise Unauthorized("the token's user does not exist", "sign in to the panel as an administrator")
    email, role = user
    if role != "admin":
        raise Forbidden("only administrators may do this", "sign in to the panel as an administrator")
    return Actor(email, user_id, ip_address, user_agent)


def invite(world: World, actor: Actor, name: str | None = None, ttl: timedelta = INVITATION_TTL) -> Invitation:
    """Make a worker that is `pending` until its host registers, and its token, of which only the SHA-256 is stored.

    Its host must register within `ttl`. Raises Refused where the name is taken.
    """
    worker_id = uuid4()
    label = name or names.invited(worker_id)
    with world.db.transaction() as tx:
        events.lock(tx)
        if name and workers.named(tx, name):
            again = f"skyctl workers install-script --worker {shlex.quote(name)}, with --link for a link"
            raise Refused(
                f"name: there is a worker {name!r} already", f"invite its host anew: {again}; or choose another name"
            )
        now = db.now(tx)
        token, _ = tokens.issue_worker_token(world.keys.signing().secret, worker_id, actor.name, now)
        workers.insert_invited(tx, worker_id, label, tokens.fingerprint(token), now + ttl)
        details = {"expiresAt": (now + ttl).isoformat()}
        events.record(tx, Event("invited", worker_id, label, actor.name, details=details), actor)
    return Invitation(worker_id, token)


def invite_anew(world: World, actor: Actor, worker_id: UUID, ttl: timedelta = INVITATION_TTL) -> Invitation:
    """Invite the host of a worker that is there once more: its reinstalled machine, another one, or after its token was
    revoked.

    What token it has stays good until the new one is used. Raises WorkerNotFound.
    """
    with world.db.transaction() as tx:
        worker, now = _locked(tx, worker_id), db.now(tx)
        token, _ = tokens.issue_worker_token(world.keys.signing().secret, worker_id, actor.name, now)
        stored_tokens.invite(tx, worker_id, tokens.fingerprint(token), now + ttl)
        details = {"expiresAt": (now + ttl).isoformat()}
        events.record(tx, Event("invited_anew", worker_id, worker.name, actor.name, details=details), actor)
    return Invitation(worker_id, token)


def generate_script(
    world: World,
    actor: Actor,
    name: str | None = None,
    *,
    insecure: bool = False,
    ttl: timedelta = INVITATION_TTL,
    anew: UUID | None = None,
) -> tuple[Invitation, str]:
    """Invite a worker, or the host of one that is there `anew`, and write the script that makes a host this worker.

    Raises Refused where the agent would have to send its token unencrypted and that was not allowed, EngineUnavailable
    where the engine that was set does not answer.
    """
    check_transport(world, insecure=insecure)
    join = world.engine().worker_join()
    invitation = invite_anew(world, actor, anew, ttl) if anew else invite(world, actor, name, ttl)
    return invitation, write_script(world, invitation, join, insecure=insecure)


def check_transport(world: World, *, insecure: bool) -> None:
    """Raise Refused where an agent would have to send its token unencrypted, and that was not allowed."""
    if not (insecure or transport.transport_is_safe(world.api_url)):
        raise Refused(
            f"{world.api_url} is plain HTTP: agents would send their tokens unencrypted",
            "set SKYCTL_API_URL to an https:// address, or accept the risk: --insecure",
        )


def write_script(
    world: World, invitation: Invitation, join: SwarmJoin | None, *, insecure: bool, by_link: bool = False
) -> str:
    """The script that makes a host the worker that was invited."""
    script = installer.InstallScript(
        worker_id=str(invitation.worker_id),
        token=invitation.token,
        api_url=world.api_url,
        heartbeat_interval_seconds=max(1, round(world.limits.heartbeat_interval.total_seconds())),
        insecure=insecure,
        join=join,
        ca_certificate=world.authority(world.api_url),
        by_link=by_link,
    )
    return installer.render(script)


def by_token(world: World, token: str) -> Worker | None:
    """The worker whose token this is; None where the token is not, or no longer, any worker's."""
    with world.db.transaction() as tx:
        now = db.now(tx)
        try:
            worker_id = tokens.verify_worker_token(world.keys.accepted(now), token, now).worker_id
        except (Unauthorized, Forbidden):
            return None
        known = stored_tokens.get(tx, worker_id)
        good = known is not None and identity.standing(known, tokens.fingerprint(token)) is not Standing.STALE
        return workers.get(tx, worker_id) if good else None


def list_workers(
    world: World, *, status: WorkerStatus | None = None, search: str | None = None, limit: int = 100, offset: int = 0
) -> WorkerPage:
    """One page of the workers, by name; `search` looks in name, hostname, address and id."""
    with world.db.transaction() as tx:
        found, total = workers.page(tx, status, search, limit, offset)
        return WorkerPage(tuple(found), total, limit, offset, db.now(tx), leases.last_pass_at(tx))


def find(world: World, reference: str) -> Worker:
    """The worker of an id, a unique beginning of one (4 characters at least), or a name.

    Raises WorkerNotFound, or ValidationError where several fit or none is meant.
    """
    if not reference.strip():
        raise ValidationError("WORKER is empty", "give an id, a unique beginning of one, or a name")
    with world.db.transaction() as tx:
        found = workers.matching(tx, reference)
    named = [worker for worker in found if reference in (worker.name, str(worker.id))]
    if not named and len(reference) >= SHORTEST_PREFIX:
        named = found
    if not named:
        raise WorkerNotFound(f"there is no worker {reference!r}", "see `skyctl workers list`")
    if len(named) > 1:
        several = ", ".join(f"{worker.name} ({worker.id})" for worker in named)
        raise ValidationError(f"{reference!r} means several workers: {several}", "give the id")
    return named[0]


def find_all(world: World, references: Sequence[str]) -> list[Worker]:
    """The workers that are meant, each once. Raises as `find` does."""
    found = [find(world, reference) for reference in references]
    return list({worker.id: worker for worker in found}.values())


def get(world: World, worker_id: UUID) -> Worker:
    """One worker. Raises WorkerNotFound."""
    with world.db.transaction() as tx:
        return known(workers.get(tx, worker_id), worker_id)


def read_at(world: World) -> datetime:
    """The database's time."""
    with world.db.transaction() as tx:
        return db.now(tx)


def check_removable(world: World, worker: Worker) -> None:
    """Raise WorkerHasContainers where `remove` would."""
    with world.db.transaction() as tx:
        _refuse_occupied(tx, worker)


def remove(world: World, worker_id: UUID, actor: Actor) -> tuple[Worker, str]:
    """Remove a worker, and its node from the swarm; its token is refused from then on. Beside it, why its node is still
    there.

    Raises WorkerNotFound, WorkerHasContainers.
    """
    with world.db.transaction() as tx:
        worker = _locked(tx, worker_id)
        _refuse_occupied(tx, worker)
        events.set_actor(tx, actor)
        workers.delete(tx, worker_id)
        events.log_activity(tx, [Event("removed", worker_id, worker.name, actor.name)], actor)
        db.notify_news(tx)
    return worker, _leave_swarm(world, worker)


def _leave_swarm(world: World, worker: Worker) -> str:
    """Remove a worker's node from the swarm; why that was not done, empty where it was, or where it is in none."""
    if worker.swarm_node_id is None:
        return ""
    try:
        engine = world.engine()
        if engine.state() is None:
            return ""
        seen, node_id = engine.observe(), worker.swarm_node_id
        node = seen.nodes.get(node_id)
        left = [each.name for each in seen.services.values() if any(is_on(task, node_id) for task in each.tasks)]
        if left and node and node.is_up:
            return f"it runs containers of services that skyctl does not manage: {', '.join(left[:5])}"
        engine.remove_node(node_id)
    except (EngineRefused, EngineUnavailable) as error:
        return error.message
    return ""


def label(world: World, worker_id: UUID, actor: Actor, labels: dict[str, str]) -> Worker:
    """Set the region or the pool of a worker, which services may ask for; one that is empty is taken away.

    Containers that are there already stay. Raises WorkerNotFound.
    """
    with world.db.transaction() as tx:
        worker = _locked(tx, worker_id)
        workers.set_labels(tx, worker_id, labels)
        said = ", ".join(f"{key} {value}" if value else f"no {key}" for key, value in labels.items())
        events.record(
            tx, Event("labelled", worker_id, worker.name, actor.name, reason=said, details=dict(labels)), actor
        )
        db.notify_news(tx)
        return worker


def note_stopped(world: World, worker_id: UUID, actor: Actor) -> None:
    """Note that a worker's agent was stopped on purpose, so that nobody waits for its silence to run out.

    Raises WorkerNotFound.
    """
    with world.db.transaction() as tx:
        worker = _locked(tx, worker_id)
        workers.note_stopped(tx, worker_id)
        events.record(tx, Event("stopped", worker_id, worker.name, actor.name), actor)
        db.notify_news(tx)


def stats(world: World) -> ClusterStats:
    """The cluster in figures."""
    with world.db.transaction() as tx:
        return workers.stats(tx)


def names_from(world: World, prefix: str) -> list[str]:
    """The names of workers that begin so, for completion."""
    with world.db.transaction() as tx:
        return workers.names(tx, prefix)


def _refuse_occupied(tx: db.Transaction, worker: Worker) -> None:
    if containers := workers.occupying_deployments(tx, worker.id):
        noun = "container" if containers == 1 else "containers"
        raise WorkerHasContainers(f"{worker.name} still has {containers} {noun}", "drain it first")


def _locked(tx: db.Transaction, worker_id: UUID) -> Worker:
    """The worker, which nobody else changes until the end; the log's lock comes first."""
    events.lock(tx)
    return known(workers.get(tx, worker_id, lock=True), worker_id)


def known(worker: Worker | None, worker_id: UUID) -> Worker:
    """The worker that was found. Raises WorkerNotFound where it was not."""
    if worker is None:
        raise WorkerNotFound(f"there is no worker {worker_id}", "see `skyctl workers list`")
    return worker
