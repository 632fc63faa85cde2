"""The JSON documents that the command line prints of what it puts together from several things. See also `wire`."""

from skyctl.model import Diagnosis, MassFailure, Overview
from skyctl.wire import Document, event_document, load_document, moment, stats_document, worker_document


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
