"""The names of workers: by the administrator's word, else after their hostname. All of them are plain words."""

from dataclasses import replace
from uuid import UUID

from skyctl.domain.cluster import Registration, Worker
from skyctl.domain.text import is_plain

LONGEST = 255
REPORTED = "reportedHostname"
"""The key of a worker's metadata under which a hostname that is no plain word is kept."""


def invited(worker_id: UUID) -> str:
    """The name of an invited worker until it registers."""
    return f"invited-{str(worker_id)[:8]}"


def with_plain_hostname(worker_id: UUID, registration: Registration) -> Registration:
    """Return a registration whose hostname is a plain word; another one is kept in the metadata, and `worker-ID` stands
    in for it."""
    metadata = {key: value for key, value in registration.metadata.items() if key != REPORTED}
    if is_plain(registration.hostname):
        return replace(registration, metadata=metadata)
    metadata[REPORTED] = registration.hostname
    return replace(registration, hostname=_stand_in(worker_id), metadata=metadata)


def after_hostname(worker_id: UUID, hostname: str) -> str:
    """The name of a worker that nobody named."""
    return hostname if hostname == _stand_in(worker_id) else f"worker-{hostname}"[:LONGEST]


def registered(worker: Worker, hostname: str) -> str:
    """The name once a worker says its hostname: one that we gave follows it, one that an administrator gave stays."""
    ours = (invited(worker.id), after_hostname(worker.id, worker.hostname))
    return after_hostname(worker.id, hostname) if worker.name in ours else worker.name


def _stand_in(worker_id: UUID) -> str:
    return f"worker-{worker_id}"
