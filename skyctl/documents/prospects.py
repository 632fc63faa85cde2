"""Where a service could go, as a document."""

from skyctl.documents.cli import migration_document
from skyctl.documents.http import Document
from skyctl.domain.workloads import Outlook

MOST_PLACES = 1_000


def outlook_document(outlook: Outlook) -> Document:
    """Where a service could be moved to now; `stays` says why no drain moves it. Of the places the first ones:
    `exclusion` is null where nothing excludes the worker, and `loadPercent` what it would have then, null where the
    swarm ranks."""
    current = outlook.service.current
    return {
        "serviceId": str(outlook.service.id),
        "service": outlook.service.spec.name,
        "replicas": outlook.service.spec.replicas,
        "workerName": current.worker_name if current else None,
        "move": migration_document(outlook.move) if outlook.move else None,
        "stays": outlook.stays or None,
        "workers": len(outlook.prospects),
        "eligible": sum(not each.exclusion for each in outlook.prospects),
        "places": [
            {
                "workerId": str(each.worker_id),
                "workerName": each.worker_name,
                "exclusion": each.exclusion or None,
                "failedLately": each.failed_lately,
                "siblings": each.siblings,
                "loadPercent": None if each.load_percent is None else round(each.load_percent, 1),
            }
            for each in outlook.prospects[:MOST_PLACES]
        ],
    }
