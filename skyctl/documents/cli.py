"""The JSON documents that only the command line prints; those that it shares with HTTP are in `wire`."""

from collections.abc import Sequence
from uuid import UUID

from skyctl.documents import manifest
from skyctl.documents.http import Document, capacity_document, load_document, moment, stats_document, worker_document
from skyctl.domain.cluster import Alert, Diagnosis, Event, MassFailure, Overview, WorkerPage
from skyctl.domain.workloads import (
    Adoptable,
    Deployment,
    DrainProgress,
    Migration,
    MigrationPage,
    Organization,
    Pause,
    Planned,
    Service,
    ServicePage,
)
from skyctl.host.certificates import Certificate


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


def page_document(page: WorkerPage) -> Document:
    """A page of workers as the command line prints it."""
    return {"workers": [worker_document(worker) for worker in page.workers], "total": page.total}


def diagnosis_document(found: Diagnosis, containers: Sequence[Service], moves: Sequence[Migration]) -> Document:
    """Why a worker has its status, what is on it, and what is to be moved off it or to it."""
    worker, limits = found.worker, found.policy
    return {
        "worker": worker_document(worker),
        "readAt": moment(found.read_at),
        "decidedBy": event_document(found.decided_by) if found.decided_by else None,
        "facts": {
            "lastHeartbeatAt": moment(worker.last_heartbeat_at),
            "silenceSeconds": None if found.silence is None else found.silence.total_seconds(),
            "timeoutSeconds": limits.heartbeat_timeout.total_seconds(),
            "outageSeconds": found.deaf.total_seconds(),
            "load": load_document(worker.load),
            "limits": {
                "cpuPercent": limits.cpu_percent,
                "memoryPercent": limits.memory_percent,
                "diskPercent": limits.disk_percent,
            },
            "stoppedAt": moment(worker.stopped_at),
            "massFailure": mass_failure_document(found.mass_failure) if found.mass_failure else None,
        },
        "verdict": {"status": found.verdict.status.value, "reason": found.verdict.reason},
        "settled": found.is_settled,
        "monitorSeenAt": moment(found.monitor_seen_at),
        "wouldChange": list(found.outlook),
        "containers": [service_document(service) for service in containers],
        "migrations": [migration_document(migration) for migration in moves],
    }


def overview_document(seen: Overview) -> Document:
    """The cluster at one moment."""
    return {
        "readAt": moment(seen.read_at),
        "stats": stats_document(seen.stats),
        "worst": [worker_document(worker) for worker in seen.worst],
        "events": [event_document(event) for event in seen.events],
        "monitor": {
            "leader": seen.leader.holder if seen.leader else None,
            "term": seen.leader.term if seen.leader else None,
            "lastPassAt": moment(seen.monitor_seen_at),
        },
        "massFailures": [mass_failure_document(failure) for failure in seen.mass_failures],
        "migrations": dict(seen.migrations),
    }


def mass_failure_document(failure: MassFailure) -> Document:
    """Many workers that fell silent at once."""
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
    return {"services": [service_document(service) for service in page.services], "total": page.total}


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
        "region": spec.region,
        "pool": spec.pool,
        "spread": spec.spread,
        "adopted": spec.adopted,
        "deployment": deployment_document(service.current) if service.current else None,
        "createdAt": moment(service.created_at),
        "updatedAt": moment(service.updated_at),
    }


def service_history_document(service: Service, past: Sequence[Deployment], moves: Sequence[Migration]) -> Document:
    """A service with its deployments and its migrations, the latest first."""
    return {
        **service_document(service),
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
    }


def adoptable_document(found: Adoptable) -> Document:
    """A service of the engine that is not under management; `obstacle` is null where it can be taken."""
    return {
        "name": found.engine.name,
        "swarmServiceId": found.engine.id,
        "image": found.engine.image,
        "node": found.node or None,
        "workerId": _id(found.worker_id),
        "workerName": found.worker_name,
        "limits": capacity_document(found.limits),
        "obstacle": found.obstacle or None,
    }


def migrations_document(page: MigrationPage) -> Document:
    """A page of migrations, and what holds them all."""
    return {
        "migrations": [migration_document(migration) for migration in page.migrations],
        "total": page.total,
        "pause": pause_document(page.pause) if page.pause else None,
        "engineTrouble": page.engine_trouble,
    }


def migration_document(migration: Migration) -> Document:
    """One move of a container."""
    return {
        "id": str(migration.id),
        "serviceId": str(migration.service_id),
        "serviceName": migration.service_name,
        "organizationId": str(migration.organization_id),
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


def pause_document(pause: Pause) -> Document:
    """A time in which no migration begins."""
    return {
        "pausedAt": moment(pause.paused_at),
        "pausedBy": pause.paused_by,
        "until": moment(pause.until_at),
        "reason": pause.reason,
    }


def drain_document(drain: DrainProgress) -> Document:
    """How far the drain of a worker is."""
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
        "reasons": list(drain.reasons),
    }


def organization_document(organization: Organization) -> Document:
    """What an organization wants when a worker fails."""
    return {
        "id": str(organization.id),
        "name": organization.name,
        "slug": organization.slug,
        "policy": organization.policy.value,
    }


def _id(found: UUID | None) -> str | None:
    return str(found) if found else None


def certificate_document(certificate: Certificate) -> Document:
    """A certificate as the command line prints it."""
    return {
        "role": certificate.role,
        "subject": certificate.subject,
        "names": list(certificate.names),
        "startsAt": moment(certificate.starts_at),
        "endsAt": moment(certificate.ends_at),
        "fingerprint": certificate.fingerprint,
        "path": str(certificate.path),
    }
