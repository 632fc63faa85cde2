"""The JSON documents of workers as people look at them: a page of them, and all about one."""

from collections.abc import Sequence
from datetime import datetime

from skyctl.documents.http import Document, limits_document, moment, worker_document
from skyctl.domain.cluster import HealthPolicy, Worker, WorkerPage
from skyctl.domain.engine import Occupant

LATE_INTERVALS = 3  # heartbeats that a monitor has not looked at: from then on statuses may be old


def page_document(page: WorkerPage, policy: HealthPolicy) -> Document:
    """A page of workers, when this was read, the limits of their load, and whether a monitor looks at them."""
    return {
        "workers": [worker_document(worker) for worker in page.workers],
        "total": page.total,
        "totalIsLeast": page.total_is_least,
        "next": page.next,
        **seen_document(page, policy),
    }


def seen_document(page: WorkerPage, policy: HealthPolicy) -> Document:
    """What is said beside a page of workers: when this was read, the limits of their load, and whether a monitor looks
    at them."""
    return {
        "readAt": moment(page.read_at),
        "limits": limits_document(policy),
        "monitor": {"leads": page.monitor_leads, **pass_document(page.monitor_seen_at, page.read_at, policy)},
    }


def pass_document(last_pass_at: datetime | None, now: datetime, policy: HealthPolicy) -> Document:
    """When a monitor last looked at all workers, and whether that is so long ago that their statuses may be old."""
    is_late = last_pass_at is None or now - last_pass_at > LATE_INTERVALS * policy.heartbeat_interval
    return {"lastPassAt": moment(last_pass_at), "late": is_late}


def worker_details_document(
    worker: Worker, read_at: datetime, policy: HealthPolicy, drain: Document | None
) -> Document:
    """A worker, when this was read, the limits of its load, and how far its drain is (null: it is not drained)."""
    return {
        **worker_document(worker),
        "readAt": moment(read_at),
        "limits": limits_document(policy),
        "drain": drain if worker.drain_requested_at else None,
    }


def runs_document(worker: Worker, there: Sequence[Occupant] | str) -> Document:
    """What runs on a worker by service, how many containers its agent counted last beside these, and why nobody can say
    (null: it is known); in place of what is there, why the engine does not say."""
    unknown = there if isinstance(there, str) else ""
    if not unknown and not worker.confirmed_node:
        claims = worker.swarm_node_id or worker.swarm_node_claim
        unknown = "its node is not confirmed" if claims else "it is in no swarm"
    known = [] if unknown or isinstance(there, str) else there
    counted = sum(occupant.counted for occupant in known)
    return {
        "services": [{"name": occupant.name, "containers": occupant.containers} for occupant in known],
        "outside": 0 if unknown else max(0, (worker.container_count or 0) - counted),
        "unknown": unknown or None,
    }


def unknown_runs_document(reason: str) -> Document:
    """What runs on a worker where nobody says it, and why not."""
    return {"services": [], "outside": 0, "unknown": reason}
