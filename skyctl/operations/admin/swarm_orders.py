"""Change what the swarm runs, whoever deployed it: the number of a service's containers, containers made anew, the way
back to what its owner had before."""

import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from skyctl.documents import changes, manifest
from skyctl.documents.changes import Change
from skyctl.domain.cluster import Actor, Event
from skyctl.domain.engine import Document, ServiceDocument
from skyctl.domain.errors import EngineConflict, Refused
from skyctl.domain.event_details import SwarmServiceRef
from skyctl.domain.events import EventKind
from skyctl.domain.workloads import Service, ServiceSpec
from skyctl.operations.admin import deploy
from skyctl.operations.admin import services as managed_services
from skyctl.operations.admin.swarm_services import Known
from skyctl.operations.shared import key_salt
from skyctl.operations.shared.context import Context
from skyctl.rules import owner_specs as rules
from skyctl.store import deployments, events, migrations, owner_specs

# Read and changed within milliseconds: only somebody who changes the service without a pause comes between each time.
ATTEMPTS = 10


def scale(context: Context, actor: Actor, known: Known, replicas: int) -> bool:
    """Give a service so many containers, and leave the others as they are; of one that we manage it is written down.
    False where it has so many.

    Raises Refused for one that has no number of containers, or is being moved; EngineRefused, EngineUnavailable.
    """
    engine, ours = known.engine, known.managed
    if engine.replicas is None:
        raise Refused(f"{known.name} has no number of containers: it is {engine.mode}", "scale a replicated service")
    if ours and ours.spec.replicas != replicas:
        wanted = replace(ours.spec, replicas=replicas)
        manifest.check_place(wanted)
        _deploy(context, actor, ours, wanted)
        return True
    if engine.replicas == replicas:
        return False
    _refuse_while_moving(context, known)
    done = f"scaled from {engine.replicas} to {replicas}"
    _change(context, actor, known, done, lambda document: rules.of_replicas(document.spec, replicas))
    return True


def restart(context: Context, actor: Actor, known: Known) -> None:
    """Make a service's containers anew, one after the other as its owner has set it.

    Raises Refused where it is being moved, EngineRefused, EngineUnavailable.
    """
    _refuse_while_moving(context, known)
    _change(context, actor, known, "restarted", lambda document: rules.restarted(document.spec))


class WayBack(NamedTuple):
    """What a service was before its owner's last change, and what differs from that now: of one that we deployed what
    was wanted of it, with the digest of its image; of any other its specification."""

    changes: Sequence[Change]
    deployed: tuple[ServiceSpec, str | None] | None = None
    former: Document | None = None

    def state(self, context: Context) -> str:
        """Return a word that is another one where the way is another one, since rows may be written by others than who
        may order the engine: who was shown a way takes that way, or none. Without the installation's salt nothing of
        what is in it can be guessed at."""
        spec, image = self.deployed or (None, None)
        held = [manifest.fields(spec) if spec else None, image, self.former]
        salt = key_salt.reader(context.db)()
        return hmac.new(salt.encode(), json.dumps(held, sort_keys=True).encode(), "sha256").hexdigest()


def way_back(context: Context, known: Known) -> WayBack:
    """Return what a service would go back to. Nothing is changed.

    Raises Refused where nobody knows of anything, or it is being moved; EngineUnavailable.
    """
    _refuse_while_moving(context, known)
    ours = known.managed
    if ours and not ours.spec.adopted:
        with context.db.transaction() as tx:
            before = deployments.before(tx, ours)
        if before is None:
            raise _without_former(known)
        spec, digest = before
        now = ours.current.digest if ours.current else None
        pinned = [Change("digest", now, digest)] if digest != now else []
        return WayBack([*changes.changes(ours.spec, spec), *pinned], deployed=before)
    document = context.engine().read(known.engine.id)
    former = former_of(context, known.engine.id, document) if document else None
    if document is None or former is None:
        raise _without_former(known)
    return WayBack(changes.of_specifications(document.spec, _back(known, document.spec, former)), former=former)


def roll_back(context: Context, actor: Actor, known: Known, way: WayBack) -> None:
    """Give a service what its owner had before his last change, whatever moves of ours changed since; where it runs, it
    stays. It is what was found, and shown, before: rows may be written by others than who may order the engine.

    Raises Refused where that is another by now, or it is being moved; EngineRefused, EngineUnavailable.
    """
    _refuse_while_moving(context, known)
    if known.managed and way.deployed:
        spec, digest = way.deployed
        _deploy(context, actor, known.managed, spec, digest or "")
        return

    def former(document: ServiceDocument) -> Document:
        if way.former is None or former_of(context, known.engine.id, document) != way.former:
            raise Refused(f"{known.name} was changed meanwhile", "look again at what it would go back to")
        return _back(known, document.spec, way.former)

    _change(context, actor, known, "rolled back", former)


def _back(known: Known, spec: Document, former: Document) -> Document:
    back = rules.rolled_back(spec, former)
    return {**back, "Mode": spec["Mode"]} if known.managed else back


def former_of(context: Context, swarm_service_id: str, document: ServiceDocument) -> Document | None:
    """Return the specification that a service's owner had before his last change; None where nobody knows."""
    with context.db.transaction() as tx:
        kept = owner_specs.get(tx, swarm_service_id)
    if kept is None:
        return document.former
    if not rules.is_changed(document.spec, kept.spec, kept.excluded):
        return kept.former
    return document.former and rules.given_back(document.former, kept.spec, kept.excluded)


def _without_former(known: Known) -> Refused:
    return Refused(f"{known.name} was never changed by its owner, as far as is known", "change it to what it is to be")


def _deploy(context: Context, actor: Actor, service: Service, spec: ServiceSpec, digest: str | None = None) -> None:
    organization = managed_services.organization(context, str(service.organization_id))
    deploy.deploy(context, actor, organization, spec, keeps_image=True, known_digest=digest)


def _refuse_while_moving(context: Context, known: Known) -> None:
    with context.db.transaction() as tx:
        migration = migrations.moving(tx, known.engine.id)
    if migration:
        raise Refused(
            f"{known.name} is being moved off {migration.source_worker_name}",
            f"wait for it, or `skyctl migrations cancel {str(migration.id)[:8]}`",
        )


def _change(
    context: Context, actor: Actor, known: Known, done: str, changed: Callable[[ServiceDocument], Document]
) -> None:
    """Change a service's specification, also where somebody else changes it at the same moment, and record it."""
    engine, conflict = context.engine(), EngineConflict(f"{known.engine.name} was removed")
    for _ in range(ATTEMPTS):
        document = engine.read(known.engine.id)
        if document is None:
            break
        try:
            engine.write(known.engine.id, document.version, changed(document))
        except EngineConflict as error:
            conflict = error
        else:
            _record(context, actor, known, done)
            return
    raise conflict


def _record(context: Context, actor: Actor, known: Known, done: str) -> None:
    details = SwarmServiceRef(swarmServiceId=known.engine.id, serviceName=known.name)
    if known.managed:
        details["serviceId"] = str(known.managed.id)
    reason = f"{known.name}: {done}"
    with context.recording() as tx:
        events.record(
            tx, Event(EventKind.SERVICE_ORDERED, None, None, actor.name, reason=reason, details=details), actor
        )
