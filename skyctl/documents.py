"""The JSON documents that only the command line prints; those that it shares with HTTP are in `wire`."""

from skyctl.model import Alert, Diagnosis, Event, MassFailure, Overview, WorkerPage
from skyctl.wire import Document, load_document, moment, stats_document, worker_document


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


def diagnosis_document(found: Diagnosis) -> Document:
    """Why a worker has its status."""
    worker, limits = found.worker, found.limits
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
