"""The JSON documents of the log, services, migrations and drains: `-o json` prints, and administration answers them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from skyctl.documents import manifest
from skyctl.documents.http import (
    Document,
    capacity_document,
    limits_document,
    load_document,
    moment,
    stats_document,
    worker_document,
)
from skyctl.documents.workers import pass_document
from skyctl.domain.cluster import Alert, Diagnosis, Event, MassFailure, Overview
from skyctl.domain.drains import DrainProgress, Planned, StillThere
from skyctl.domain.workloads import (
    Adoptable,
    Deployment,
    Migration,
    MigrationPage,
    Organization,
    Pause,
    Service,
    ServicePage,
)


def event_document(event: Event) -> Document:
    """An event of the log."""
    return {
        "seq": event.seq,
        "at": moment(event.at),
        "kind": event.kind,
        "workerId": str(event.worker_id) if event.worker_id else None,
        "workerName": event.worker_name,
        "actor": event.actor,
        "fromStatus": event.from_status.value if event.from_status else None,
        "toStatus": event.to_status.value if event.to_status else None,
        "reason": event.reason,
        "term": event.term,
        "details": dict(event.details),
    }


def alert_document(alert: Alert) -> Document:
    """An alert."""
    return {
        "id": alert.id,
        "at": moment(alert.at),
        "kind": alert.kind,
        "workerId": str(alert.worker_id) if alert.worker_id else None,
        "title": alert.title,
        "message": alert.message,
        "metadata": dict(alert.metadata),
    }


def delivered_document(alert: Alert, delivered: int, waiting: int, given_up: int) -> Document:
    """An alert, and how many channels took it, have it waiting, or will not get it."""
    return alert_document(alert) | {"deliveries": {"delivered": delivered, "waiting": waiting, "givenUp": given_up}}


def alerts_document(alerts: Sequence[tuple[Alert, int, int, int]], read_at: datetime) -> Document:
    """Alerts, each with how many channels took it, have it waiting, or will not get it; and when this was read."""
    return {"alerts": [delivered_document(*each) for each in alerts], "readAt": moment(read_at)}


def diagnosis_document(diagnosis: Diagnosis, containers: Sequence[Service], moves: Sequence[Migration]) -> Document:
    """The reasons of a worker's status, its containers, and what is to be moved off it or to it."""
    worker, policy = diagnosis.worker, diagnosis.policy
    return {
        "worker": worker_document(worker),
        "readAt": moment(diagnosis.read_at),
        "decidedBy": event_document(diagnosis.decided_by) if diagnosis.decided_by else None,
        "facts": {
            "lastHeartbeatAt": moment(worker.last_heartbeat_at),
            "silenceSeconds": None if diagnosis.silence is None else diagnosis.silence.total_seconds(),
            "timeoutSeconds": policy.heartbeat_timeout.total_seconds(),
            "outageSeconds": diagnosis.deaf.total_seconds(),
            "load": {**load_document(worker.load), "containerCount": worker.container_count},
            "engineAwaySince": moment(worker.engine_away_since),
            "nodeDownSince": moment(worker.node_down_since),
            "engineGraceSeconds": policy.engine_grace.total_seconds(),
            "limits": limits_document(policy),
            "undrainedAt": moment(worker.undrained_at),
            "stoppedAt": moment(worker.stopped_at),
            "massFailure": mass_failure_document(diagnosis.mass_failure) if diagnosis.mass_failure else None,
        },
        "verdict": {"status": diagnosis.verdict.status.value, "reason": diagnosis.verdict.reason},
        "settled": diagnosis.is_settled,
        "monitorSeenAt": moment(diagnosis.monitor_seen_at),
        "wouldChange": list(diagnosis.outlook),
        "containers": [service_document(service) for service in containers],
        "migrations": [migration_document(migration) for migration in moves],
    }


def overview_document(overview: Overview) -> Document:
    """The cluster at one moment."""
    return {
        "readAt": moment(overview.read_at),
        "stats": stats_document(overview.stats, overview.policy),
        "worst": [worker_document(worker) for worker in overview.worst],
        "events": [event_document(event) for event in overview.events],
        "monitor": {
            "leader": overview.leader.holder if overview.leader else None,
            "term": overview.leader.term if overview.leader else None,
            **pass_document(overview.monitor_seen_at, overview.read_at, overview.policy),
        },
        "massFailures": [mass_failure_document(failure) for failure in overview.mass_failures],
        "migrations": dict(overview.migrations),
    }


def mass_failure_document(failure: MassFailure) -> Document:
    """Many workers that failed at once."""
    return {
        "id": failure.id,
        "region": failure.region,
        "silent": failure.silent,
        "schedulable": failure.schedulable,
        "detectedAt": moment(failure.detected_at),
        "liftedAt": moment(failure.lifted_at),
    }


def services_document(page: ServicePage) -> Document:
    """A page of services."""
    rows = [service_document(service) for service in page.services]
    return {"services": rows, "total": page.total, "readAt": moment(page.read_at)}


def service_document(service: Service) -> Document:
    """A service. Of its variables only the names are shown, since the values may be secrets."""
    spec = service.spec
    return {
        "id": str(service.id),
        "name": spec.name,
        "slug": service.slug,
        "organizationId": str(service.organization_id),
        "organization": service.organization,
        "status": service.status.value,
        "image": spec.image,
        "limits": capacity_document(spec.limits),
        "variables": sorted(spec.environment),
        "ports": [manifest.port_text(port) for port in spec.ports],
        "endpointMode": spec.endpoint_mode.value,
        "labels": dict(spec.labels),
        "command": list(spec.command),
        "replicas": spec.replicas,
        "region": spec.region,
        "pool": spec.pool,
        "spread": spec.spread,
        "adopted": spec.adopted,
        "downSince": moment(service.down_since) if service.down_reason else None,
        "downReason": service.down_reason,
        "endingReason": service.ending_reason,
        "deployment": deployment_document(service.current) if service.current else None,
        "createdAt": moment(service.created_at),
        "updatedAt": moment(service.updated_at),
    }


def service_history_document(
    service: Service,
    past: Sequence[Deployment],
    moves: Sequence[Migration],
    read_at: datetime,
) -> Document:
    """A service with its deployments and its migrations, the latest first; `swarm`, or `swarmTrouble` in its place, is
    for who asks the engine."""
    return {
        **service_document(service),
        "readAt": moment(read_at),
        "swarm": None,
        "swarmTrouble": None,
        "deployments": [deployment_document(deployment) for deployment in past],
        "migrations": [migration_document(migration) for migration in moves],
    }


def deployment_document(deployment: Deployment) -> Document:
    """One placement of a service on a worker."""
    return {
        "id": str(deployment.id),
        "workerId": _id(deployment.worker_id),
        "workerName": deployment.worker_name,
        "swarmServiceId": deployment.swarm_service_id,
        "containerId": deployment.container_id,
        "image": deployment.image,
        "digest": deployment.digest,
        "status": deployment.status.value,
        "error": deployment.log or None,
        "deployedAt": moment(deployment.deployed_at),
        "stoppedAt": moment(deployment.stopped_at),
        "createdAt": moment(deployment.created_at),
    }


def planned_document(planned: Planned) -> Document:
    """A service, and the place that was found for it; without one, `target` is null and the reason says what is
    missing."""
    return {
        "service": planned.service_name,
        "organization": planned.organization,
        "source": planned.source,
        "target": planned.target,
        "reason": planned.reason,
        "unpinned": planned.unpinned or None,
        **({"way": planned.way, "containers": planned.containers} if planned.way else {}),
    }


def plan_document(planned: Sequence[Planned]) -> Document:
    """The places to which containers would go; `left`: whether it would stay where it is."""
    return {"containers": [planned_document(each) | {"left": each.is_left} for each in planned]}


def adoptable_document(adoptable: Adoptable) -> Document:
    """A service of the engine that is not under management; `obstacle` is null where it can be taken."""
    return {
        "name": adoptable.engine.name,
        "swarmServiceId": adoptable.engine.id,
        "image": adoptable.engine.image,
        "node": adoptable.node or None,
        "replicas": adoptable.engine.replicas,
        "workerId": _id(adoptable.worker_id),
        "workerName": adoptable.worker_name,
        "limits": capacity_document(adoptable.limits),
        "obstacle": adoptable.obstacle or None,
        "evenIf": adoptable.even_if.value if adoptable.even_if else None,
    }


def migrations_document(page: MigrationPage) -> Document:
    """A page of migrations, and what holds them all."""
    return {
        "migrations": [migration_document(migration) for migration in page.migrations],
        "total": page.total,
        "readAt": moment(page.read_at),
        "pause": pause_document(page.pause) if page.pause else None,
        "engineTrouble": page.engine_trouble,
    }


def migration_document(migration: Migration) -> Document:
    """One move of a container."""
    return {
        "id": str(migration.id),
        "serviceId": _id(migration.service_id),
        "swarmServiceId": migration.swarm_service_id,
        "serviceName": migration.service_name,
        "organizationId": _id(migration.organization_id),
        "cause": migration.cause.value,
        "state": migration.state.value,
        "reason": migration.reason,
        "sourceWorkerId": _id(migration.source_worker_id),
        "sourceWorkerName": migration.source_worker_name,
        "targetWorkerId": _id(migration.target_worker_id),
        "targetWorkerName": migration.target_worker_name,
        "attempts": migration.attempts,
        "cancelledBy": migration.cancelled_by,
        "createdAt": moment(migration.created_at),
        "startedAt": moment(migration.started_at),
        "deadlineAt": moment(migration.deadline_at),
        "nextAttemptAt": moment(migration.next_attempt_at),
        "finishedAt": moment(migration.finished_at),
        "sourceStoppedAt": moment(migration.source_stopped_at),
    }


def migration_history_document(migration: Migration, history: Sequence[Event], read_at: datetime) -> Document:
    """A migration, and what happened to it."""
    events = [event_document(event) for event in history]
    return {**migration_document(migration), "readAt": moment(read_at), "events": events}


def pause_document(pause: Pause) -> Document:
    """A time in which no migration begins."""
    return {
        "pausedAt": moment(pause.paused_at),
        "pausedBy": pause.paused_by,
        "until": moment(pause.until_at),
        "reason": pause.reason,
    }


def drain_document(drain: DrainProgress) -> Document:
    """The progress of a worker's drain."""
    worker = drain.worker
    return {
        "workerId": str(worker.id),
        "workerName": worker.name,
        "requestedAt": moment(worker.drain_requested_at),
        "deadlineAt": moment(worker.drain_deadline_at),
        "finishedAt": moment(worker.drain_finished_at),
        "moved": drain.moved,
        "underWay": drain.under_way,
        "waiting": drain.waiting,
        "left": list(drain.left),
        "others": list(drain.others),
        "othersCount": drain.others_count,
        "unknown": drain.unknown or None,
        "reasons": list(drain.reasons),
        "over": drain.is_over,
        "empty": drain.is_empty,
    }


def still_there_document(there: StillThere) -> Document:
    """What is on a worker whose drain is not over, by the names of the progress."""
    return {"left": list(there.ours), "others": list(there.others), "unknown": there.unknown or None}


def organization_document(organization: Organization) -> Document:
    """An organization, with its policy for when a worker fails."""
    return {
        "id": str(organization.id),
        "name": organization.name,
        "slug": organization.slug,
        "policy": organization.policy.value,
    }


def _id(value: UUID | None) -> str | None:
    return str(value) if value else None
