"""The names of workers: by the administrator's word, else after their hostname."""

from uuid import UUID

from skyctl.domain.cluster import Worker

LONGEST = 255


def invited(worker_id: UUID) -> str:
    """The name of an invited worker until it registers."""
    return f"invited-{str(worker_id)[:8]}"


def after_hostname(hostname: str) -> str:
    """The name of a worker that nobody named."""
    return f"worker-{hostname}"[:LONGEST]


def registered(worker: Worker, hostname: str) -> str:
    """The name once a worker says its hostname: one that we gave follows it, one that an administrator gave stays."""
    ours = (invited(worker.id), after_hostname(worker.hostname))
    return after_hostname(hostname) if worker.name in ours else worker.name
