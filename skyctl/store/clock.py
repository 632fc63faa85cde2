"""The database's clock: whether it was set back, and the stored times moved along with it."""

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from skyctl.domain.states import WorkerStatus
from skyctl.store import tables as t
from skyctl.store.outages import LOCK
from skyctl.store.rows import STATUS

RECENT = timedelta(days=1)

# Written by whoever runs, every few seconds. Within a long transaction skyctl_now() stands still, and others write on.
_READ = sa.text("""
    SELECT read.at, greatest((SELECT max(last_seen_at) FROM serve_instances),
                             (SELECT greatest(max(last_pass_at), max(expires_at) - CAST(:ttl AS interval))
                              FROM monitor_leases)) - read.at
    FROM (SELECT skyctl_now() - now() + clock_timestamp() AS at) AS read
""")

# What is compared with the present: by the column that tells when the row was written, the times that are in it. The
# log is history, and the ends of tokens and links are dates that their holders were told: neither is moved.
MOVED: tuple[tuple[sa.Table, str, tuple[str, ...]], ...] = (
    (
        t.workers,
        "updated_at",
        (
            "stopped_at",
            "status_changed_at",
            "flapping_since",
            "drain_requested_at",
            "drain_deadline_at",
            "drain_finished_at",
            "node_paused_at",
            "undrained_at",
            "bound_at",
            "auth_token_issued_at",
            "next_token_issued_at",
            "agent_offered_at",
            "swarm_node_confirmed_at",
            "swarm_node_refuted_at",
        ),
    ),
    (t.deployments, "updated_at", ("created_at", "untold_since", "deployed_at", "stopped_at")),
    (
        t.migrations,
        "updated_at",
        ("created_at", "started_at", "next_attempt_at", "deadline_at", "finished_at", "summed_up_at"),
    ),
    (t.pauses, "paused_at", ("until_at",)),
    (t.mass_failures, "detected_at", ()),
    (t.incidents, "closed_at", ()),
    (t.incidents, "exhaustion_alerted_at", ()),
    (t.retention_sweeps, "swept_at", ()),
    (t.certificate_requests, "asked_at", ()),
    (t.serve_outages, "ended_at", ("started_at",)),
    (t.serve_instances, "last_seen_at", ("started_at",)),
    (t.monitor_leases, "last_pass_at", ()),
)


_MARKS = ("stopped_at", "status_changed_at", "flapping_since", "bound_at")


class Reading(NamedTuple):
    """The time that the clock shows, and by how much what was written before is ahead of that: zero or less, unless it
    was set back."""

    at: datetime
    ahead: timedelta


def read(connection: sa.Connection, ttl: timedelta) -> Reading:
    """Read the clock, and what those that run have noted last. `ttl`: for how long a lease is taken."""
    at, ahead = connection.execute(_READ, {"ttl": ttl}).one()
    return Reading(at, ahead or timedelta())


def lock(connection: sa.Connection) -> None:
    """Keep others from writing signs of life and workers until this transaction ends: whatever is locked here is locked
    in this order by everybody, the lease and the log before it."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    connection.execute(sa.text("LOCK TABLE container_workers IN SHARE ROW EXCLUSIVE MODE"))


def move_back(connection: sa.Connection, reading: Reading, ttl: timedelta, unnoticed: timedelta) -> None:
    """Move the stored times of the last day back with the clock, so that all durations between them and the present
    remain; what was written within the time for which the step may have been unnoticed stays. See `lock`."""
    heard = t.workers.c.last_heartbeat_at
    # one that is offline and seems to beat just now beats again soon: none may recover by being moved
    is_silent = sa.and_(STATUS == WorkerStatus.OFFLINE, heard <= reading.at)
    connection.execute(
        _moved(reading, t.workers, "last_heartbeat_at").where(sa.or_(_before(heard, reading, unnoticed), is_silent))
    )
    for table, written, others in MOVED:
        moved = _moved(reading, table, written, *others)
        connection.execute(moved.where(_before(table.c[written], reading, unnoticed)))
    # of a row that was written after the step for another reason, no mark may lie ahead
    for mark in (t.workers.c[name] for name in _MARKS):
        connection.execute(sa.update(t.workers).where(mark > reading.at).values({mark.name: reading.at}))
    claimants = sa.update(t.workers).where(t.workers.c.rivals.is_not(None))
    connection.execute(claimants.values(rivals=sa.null()))  # they are noted again when they ask again
    due = t.deliveries.c.next_attempt_at
    waiting = (t.deliveries.c.delivered_at.is_(None), t.deliveries.c.given_up_at.is_(None), due > reading.at)
    connection.execute(_moved(reading, t.deliveries, "next_attempt_at").where(*waiting))
    ends, longest = t.monitor_leases.c.expires_at, reading.at + ttl
    connection.execute(sa.update(t.monitor_leases).where(ends > longest).values(expires_at=longest))


def _moved(reading: Reading, table: sa.Table, written: str, *others: str) -> sa.Update:
    """An update of the rows of the last day: the time that tells when each was written, and others, are moved."""
    recent = sa.update(table).where(table.c[written] > reading.at - RECENT)
    return recent.values({name: table.c[name] - reading.ahead for name in (written, *others)})


def _before(written: sa.Column[datetime], reading: Reading, unnoticed: timedelta) -> sa.ColumnElement[bool]:
    return sa.or_(written > reading.at, written <= reading.at - unnoticed)
