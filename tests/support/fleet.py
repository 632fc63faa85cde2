"""A fleet under a fake engine: workers with nodes, services on them, and a monitor's steps one by one."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from skyctl.domain.cluster import Capacity, Event
from skyctl.domain.workloads import Migration, Organization, Service, ServiceSpec
from skyctl.operations.admin import deploy as deploy_admin
from skyctl.operations.admin import services
from skyctl.operations.monitor import alerts, node_claims, node_watch
from skyctl.operations.monitor import migrations as migrations_monitor
from skyctl.operations.monitor import services as services_monitor
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from tests.support.fakes import FakeEngine
from tests.support.helpers import TESTS, add_worker, look

LOAD = {"cpuPercent": 0, "memoryPercent": 0, "diskPercent": 0, "containerCount": 0}
IDLE = 10_000
MOST_QUIET = 5
LOOKS = ["node_down_seen_at", "down_seen_at", "ending_seen_at"]


@dataclass
class Fleet:
    """Workers by name, and the steps of a monitor, which are taken when `step` says so."""

    context: Context
    connection: psycopg.Connection
    engine: FakeEngine
    ids: dict[str, UUID] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)

    def add(self, *names: str, cores: float = 4, memory: float = 4096, disk: float = 100, **metadata: object) -> None:
        """Workers that are active and empty, each with its node."""
        for name in names:
            node = self.nodes[name] = self.engine.add_node(name)
            self.ids[name] = add_worker(
                self.connection,
                name=name,
                hostname=name,
                swarm_node_id=node,
                status="active",
                capacity=json.dumps({"cpuCores": cores, "memoryMb": memory, "diskGb": disk}),
                current_load=json.dumps(LOAD),
                metadata=json.dumps(metadata),
                last_heartbeat_at="now",
                status_changed_at="now",
            )
        self.claims()

    @property
    def organization(self) -> Organization:
        """The organization whose services these are."""
        return services.organization(self.context, None, make=True)

    def deploy(self, *names: str, to: str | None = None, cores: float = 1, memory: float = 512, **more: Any) -> None:
        """Services that run; `to` the worker of this name, which else the rule chooses."""
        others = [worker_id for name, worker_id in self.ids.items() if to and name != to]
        self._flap(others, flap=True)
        image = more.pop("image", "app:1")
        for name in names:
            spec = ServiceSpec(name, image, Capacity(cores, memory, 1), **more)
            deploy_admin.deploy(self.context, TESTS, self.organization, spec)
        self._flap(others, flap=False)
        self.engine.settle()
        self.settle()

    def fail(self, name: str) -> None:
        """The worker falls silent, and the swarm loses its node; the monitor concludes that it is offline."""
        self.engine.lose(self.nodes[name])
        self.connection.execute(
            "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour' WHERE id = %s",
            (self.ids[name],),
        )
        look(self.context)

    def heal(self, name: str) -> None:
        """The worker is back, and its node with it."""
        self.engine.heal(self.nodes[name])
        self.beat(name)
        look(self.context)

    def beat(self, *names: str) -> None:
        """The workers are heard from."""
        for name in names or self.ids:
            self._heard(name, self.context.db.ahead)

    def term(self) -> leadership.Term:
        """A term of a monitor, which ends the one before it."""
        term = leadership.lead(self.context, "fleet", lambda _: True)
        assert term
        return term

    def step(self) -> list[Event]:
        """Take one step of everything, in a term of its own; return the events."""
        term = self.term()
        events = [
            *node_claims.check_claims(term, all_of_them=True),
            *node_watch.note_nodes(term)[0],
            *migrations_monitor.reconcile_migrations(term).events,
            *services_monitor.reconcile_services(term, all_of_them=True)[0],
        ]
        alerts.raise_alerts(term)
        return events

    def claims(self) -> list[Event]:
        """Look at the workers' claims of nodes, as the first step of a monitor does; return the events."""
        term = self.term()
        events = node_claims.check_claims(term, all_of_them=True)
        term.release()
        return events

    def settle(self) -> list[Event]:
        """Take steps until one leaves the database and the swarm as they were, or many in a row tell nothing, as where
        the swarm tries again for ever; return the events."""
        events: list[Event] = []
        quiet, before = 0, self._state()
        while quiet < MOST_QUIET:
            told = self.step()
            events += told
            now = self._state()
            if now == before:
                break
            quiet, before = 0 if told else quiet + 1, now
        return events

    def _state(self) -> tuple[object, ...]:
        """All that a step could change, but for the lease that it renews, and the moments at which it looked."""
        rows = (
            sql.SQL(
                "(SELECT md5(string_agg(what::text, '' ORDER BY what::text)) "
                "FROM (SELECT to_jsonb(row) - {}::text[] FROM {} row) AS rows (what))"
            ).format(LOOKS, sql.Identifier(table))
            for table in self._tables
        )
        found = self.connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(rows))).fetchone()
        return repr(self.engine), found

    @cached_property
    def _tables(self) -> list[str]:
        found = self.connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'monitor_leases'"
        )
        return [str(name) for (name,) in found]

    def where(self) -> dict[str, str | None]:
        """By service, the worker on which its current deployment is."""
        return {name: each.current.worker_name if each.current else None for name, each in self.services().items()}

    def running(self) -> dict[str, list[str]]:
        """By service, the workers on whose nodes its containers run, orphaned ones included, as the engine has it."""
        names = {node: name for name, node in self.nodes.items()}
        seen = self.engine.observe()
        return {
            service.name.split("-")[-1]: sorted(
                names.get(task.node_id, "a node of nobody")
                for task in service.tasks
                if task.state == "running" and task.node_id
            )
            for service in seen.services.values()
        }

    def services(self) -> dict[str, Service]:
        """The services by name."""
        return {each.spec.name: each for each in services.list_services(self.context, limit=1000).services}

    def migrations(self) -> dict[str, Migration]:
        """The latest migration of each service, by the service's name."""
        from skyctl.operations.admin import migrations

        found = migrations.list_migrations(self.context, limit=1000).migrations
        return {each.service_name: each for each in sorted(found, key=lambda each: each.created_at)}

    def _heard(self, name: str, later: timedelta) -> None:
        heard = "UPDATE container_workers SET last_heartbeat_at = now() + %s WHERE id = %s"
        self.connection.execute(heard, (later, self.ids[name]))

    def _flap(self, worker_ids: list[UUID], *, flap: bool) -> None:
        since = "now()" if flap else "NULL"
        self.connection.execute(
            f"UPDATE container_workers SET flapping_since = {since} WHERE id = ANY (%s)", (worker_ids,)
        )
