"""The database's clock: whether it was set back, and the stored times moved along with it."""

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from skyctl.domain.states import WorkerStatus
from skyctl.store import tables as t
from skyctl.store.outages import LOCK
from skyctl.store.rows import STATUS

RECENT = timedelta(days=1)

# Written by whoever runs, every few seconds: within a long transaction skyctl_now() stands still, and others write on.
_READ = sa.text("""
    SELECT read.at, greatest((SELECT max(last_seen_at) FROM serve_instances),
                             (SELECT greatest(max(last_pass_at), max(expires_at) - CAST(:ttl AS interval))
                              FROM monitor_leases)) - read.at
    FROM (SELECT skyctl_clock() AS at) AS read
""")

# What is compared with the present: of the workers, beside the last heartbeat; of all others by the column that tells
# when the row was written, the times that are in it. The log is history, and the ends of tokens and links are dates
# that their holders were told: neither is moved.
OF_WORKERS = (
    "updated_at",
    "stopped_at",
    "status_changed_at",
    "flapping_since",
    "drain_requested_at",
    "drain_deadline_at",
    "drain_finished_at",
    "node_paused_at",
    "drain_counted_at",
    "undrained_at",
    "cordoned_at",
    "alerts_silenced_until",
    "bound_at",
    "auth_token_issued_at",
    "next_token_issued_at",
    "agent_offered_at",
    "swarm_node_confirmed_at",
    "swarm_node_refuted_at",
    "engine_away_since",
    "engine_away_seen_at",
    "node_down_since",
    "node_down_seen_at",
    "engine_failed_at",
    "failure_seen_at",
    "node_lost_at",
)
MOVED: tuple[tuple[sa.Table, str, tuple[str, ...]], ...] = (
    (t.deployments, "updated_at", ("created_at", "untold_since", "applied_at", "deployed_at", "stopped_at")),
    (
        t.migrations,
        "updated_at",
        ("created_at", "started_at", "next_attempt_at", "deadline_at", "finished_at", "summed_up_at"),
    ),
    (t.pauses, "paused_at", ("until_at",)),
    (t.mass_failures, "detected_at", ()),
    (t.services, "down_seen_at", ("down_since",)),
    (t.services, "ending_seen_at", ()),
    (t.owner_specs, "changed_at", ()),
    (t.incidents, "closed_at", ()),
    (t.incidents, "exhaustion_alerted_at", ()),
    (t.retention_sweeps, "swept_at", ()),
    (t.certificate_requests, "asked_at", ()),
    (t.monitor_requests, "asked_at", ()),
    (t.serve_outages, "ended_at", ("started_at",)),
    (t.serve_instances, "last_seen_at", ("started_at",)),
    (t.monitor_leases, "last_pass_at", ()),
    (t.monitor_leases, "engine_away_seen_at", ("engine_away_since",)),
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
    _move_workers(connection, reading, unnoticed)
    for table, written, others in MOVED:
        moved = _moved(reading, table, written, *others)
        connection.execute(moved.where(_before(table.c[written], reading, unnoticed)))
    due = t.deliveries.c.next_attempt_at
    waiting = (t.deliveries.c.delivered_at.is_(None), t.deliveries.c.given_up_at.is_(None), due > reading.at)
    connection.execute(_moved(reading, t.deliveries, "next_attempt_at").where(*waiting))
    ends, longest = t.monitor_leases.c.expires_at, reading.at + ttl
    connection.execute(sa.update(t.monitor_leases).where(ends > longest).values(expires_at=longest))


def _move_workers(connection: sa.Connection, reading: Reading, unnoticed: timedelta) -> None:
    """Move their times back in one update: of a large cluster each takes seconds, and heartbeats wait."""
    c, recent = t.workers.c, reading.at - RECENT
    heard = c.last_heartbeat_at
    # one that is offline and seems to beat just now beats again soon: none may recover by being moved
    is_silent = sa.and_(STATUS == WorkerStatus.OFFLINE, heard <= reading.at)
    was_heard = sa.and_(heard > recent, sa.or_(_before(heard, reading, unnoticed), is_silent))
    was_written = sa.and_(c.updated_at > recent, _before(c.updated_at, reading, unnoticed))
    moved = {name: sa.case((was_written, c[name] - reading.ahead), else_=c[name]) for name in OF_WORKERS}
    # of a row that was written after the step for another reason, no mark may lie ahead
    is_ahead = {name: moved[name] > reading.at for name in _MARKS}
    moved |= {name: sa.case((is_ahead[name], reading.at), else_=moved[name]) for name in _MARKS}
    moved["last_heartbeat_at"] = sa.case((was_heard, heard - reading.ahead), else_=heard)
    claims = c.rivals.is_not(None)  # they are noted again when they ask again
    changed = sa.update(t.workers).where(sa.or_(was_heard, was_written, *is_ahead.values(), claims))
    connection.execute(changed.values({**moved, "rivals": sa.null()}))


def _moved(reading: Reading, table: sa.Table, written: str, *others: str) -> sa.Update:
    """An update of the rows of the last day: the time that tells when each was written, and others, are moved."""
    recent = sa.update(table).where(table.c[written] > reading.at - RECENT)
    return recent.values({name: table.c[name] - reading.ahead for name in (written, *others)})


def _before(written: sa.Column[datetime], reading: Reading, unnoticed: timedelta) -> sa.ColumnElement[bool]:
    return sa.or_(written > reading.at, written <= reading.at - unnoticed)
