"""Leadership among monitors: one leads for a term, the others stand by."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from skyctl.domain.cluster import Lease
from skyctl.domain.engine import EngineState, NodeTask, Observation, ServiceDocument, SwarmJoin
from skyctl.operations.shared.context import Context, Engine
from skyctl.store import db, events, leases

TTL = timedelta(seconds=15)


@dataclass(frozen=True)
class Term:
    """The time for which one monitor leads, and the only way by which it writes to the database or orders the engine.

    Once the term has ended, because the monitor was frozen or cut off and another one leads or may, every method but
    `reading`, `observe`, `read` and `release` raises LostLead and nothing was written or ordered.
    """

    context: Context
    lease: Lease

    @property
    def number(self) -> int:
        """The number of the term; each one is greater than all before it."""
        return self.lease.term

    @contextmanager
    def recording(self) -> Iterator[db.Transaction]:
        """Begin a transaction that may append events: it holds the lease, prolongs it, and takes the event log's lock.

        The lease's row is locked before the log: nobody else locks both. Raises LostLead.
        """
        with self.writing() as tx:
            events.lock(tx)
            yield tx

    @contextmanager
    def writing(self, limit_seconds: float = db.LIMIT_SECONDS) -> Iterator[db.Transaction]:
        """Begin a transaction that appends no event: it holds the lease and prolongs it.

        It does not wait for whoever holds the event log's lock, and keeps nobody from it: a term must not be lost
        because an administrator's transaction is slow, nor must a long one, as that of alerts, hold up registrations.
        Raises LostLead.
        """
        with self.context.db.transaction(limit_seconds) as tx:
            leases.hold(tx, self.lease, TTL)
            yield tx

    @contextmanager
    def reading(self) -> Iterator[db.Transaction]:
        """Begin a transaction in which the database refuses to write. It neither needs nor prolongs the lease."""
        with self.context.db.transaction() as tx:
            db.refuse_writes(tx)
            yield tx

    def reading_on(self, renew_after: timedelta = TTL / 5) -> Callable[[], AbstractContextManager[db.Transaction]]:
        """Return `reading` for many transactions one after the other, between which the lease is prolonged: reading
        all of a million workers may take longer than it lasts. Beginning one may raise LostLead."""
        renewed_at = time.monotonic()

        @contextmanager
        def reading() -> Iterator[db.Transaction]:
            nonlocal renewed_at
            if time.monotonic() - renewed_at > renew_after.total_seconds():
                self.renew()
                renewed_at = time.monotonic()
            with self.reading() as tx:
                yield tx

        return reading

    def engine(self) -> Engine:
        """Make sure of the lease, prolong it, and return the engine for one order at once. Raises LostLead."""
        self.renew()
        return self.context.engine()

    def observe(self, service_ids: Collection[str] | None = None) -> Observation:
        """Return what the engine shows, as `Engine.observe` does. It neither needs nor prolongs the lease."""
        return self.context.engine().observe(service_ids)

    def tasks_on(self, node_ids: Collection[str]) -> list[NodeTask]:
        """Return what the engine has on nodes, as `Engine.tasks_on` does. It neither needs nor prolongs the lease."""
        return self.context.engine().tasks_on(node_ids)

    def read(self, service_id: str) -> ServiceDocument | None:
        """Return a service's specification, as `Engine.read` does. It neither needs nor prolongs the lease."""
        return self.context.engine().read(service_id)

    def worker_join(self) -> SwarmJoin | None:
        """Return how a host joins the swarm, as `Engine.worker_join` does. It neither needs nor prolongs the lease."""
        return self.context.engine().worker_join()

    def engine_state(self) -> EngineState | None:
        """Return what the engine says of itself, as `Engine.state` does. It neither needs nor prolongs the lease."""
        return self.context.engine().state()

    def renew(self) -> None:
        """Prolong the lease. Raises LostLead."""
        with self.writing():
            pass

    def release(self) -> None:
        """End the term, so that another monitor can lead at once."""
        with self.context.db.transaction() as tx:
            leases.release(tx, self.lease)


def lead(context: Context, holder: str, has_ended: Callable[[str], bool]) -> Term | None:
    """Begin a term where nobody leads, or the holder itself does, or one that is known to have ended; None where
    another one leads."""
    with context.db.transaction() as tx:
        leader = leases.holder(tx)
        yields = leader is not None and (leader == holder or has_ended(leader))
        lease = leases.take(tx, holder, TTL, leader if yields else None)
    return Term(context, lease) if lease else None
