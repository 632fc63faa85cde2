"""One busy moment makes nobody unhealthy and blocks no room: what counts of CPU are its last heartbeats."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from skyctl.domain.cluster import Capacity, Heartbeat, Load, Worker
from skyctl.domain.engine import SwarmJoin
from skyctl.domain.workloads import ServiceSpec
from skyctl.operations.admin import deploy, workers
from skyctl.operations.agents import heartbeats
from skyctl.operations.shared.context import Context
from skyctl.rules import tokens
from tests.conftest import make_context
from tests.support.fakes import FakeEngine
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_worker, look

Beat = Callable[..., Worker]


@pytest.fixture
def beat(context: Context, connection: psycopg.Connection) -> Beat:
    """Send a worker's heartbeat with this CPU, and let the monitor look; the worker then."""
    worker_id = add_worker(connection, token="t", status="active")

    def beat(cpu: float, memory: float = 10, later: float = 30) -> Worker:
        context.db.ahead += timedelta(seconds=later)
        wanted = Heartbeat(str(worker_id), tokens.fingerprint("t"), Load(cpu, memory, 10, 0))
        assert asyncio.run(heartbeats.record(context, [wanted])) == [None]
        look(context)
        return workers.get(context, worker_id)

    return beat


def test_cpu_has_to_last_and_memory_counts_at_once(beat: Beat) -> None:
    assert [beat(cpu).status for cpu in (99, 20, 95, 40, 99)] == ["active"] * 5
    assert beat(98).status == "unhealthy"
    assert [beat(97).status, beat(80).status, beat(99).status] == ["unhealthy", "active", "active"]
    assert beat(10, memory=96).status == "unhealthy"


def test_ten_heartbeats_are_kept_the_latest_first_and_none_from_before_a_gap(beat: Beat) -> None:
    for cpu in range(1, 13):
        worker = beat(cpu)
    assert list(worker.recent_cpu) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert list(beat(99, later=121).recent_cpu) == [99]
    assert beat(99, later=121).status == "active"
    assert list(beat(98, later=119).recent_cpu) == [98, 99]


def test_a_late_heartbeat_ends_no_exhaustion(beat: Beat) -> None:
    assert [beat(99).status, beat(99).status] == ["active", "unhealthy"]
    assert [beat(99, later=later).status for later in (61, 119, 121, 61)] == ["unhealthy"] * 4
    assert beat(90, later=121).status == "active"


def test_of_a_worker_that_the_panel_hears_the_last_heartbeat_counts(
    beat: Beat, context: Context, connection: psycopg.Connection
) -> None:
    worker = beat(10)
    said = json.dumps({"cpu_percent": 99, "memory_percent": 10, "disk_percent": 10, "container_count": 0})
    connection.execute("UPDATE container_workers SET current_load = %s, last_heartbeat_at = skyctl_now()", (said,))
    look(context)
    assert (workers.get(context, worker.id).status, workers.get(context, worker.id).recent_cpu) == ("unhealthy", ())
    assert list(beat(20).recent_cpu) == [20]


@pytest.mark.parametrize("before", [[], [5.0], [3.0] * 9])
def test_a_busy_moment_leaves_room_for_a_container(
    database_url: str, connection: psycopg.Connection, before: list[float]
) -> None:
    engine = FakeEngine(SwarmJoin("10.0.0.1:2377", "SWMTKN-1-abc"))
    context = make_context(database_url, engine=engine)
    fleet = Fleet(context, connection, engine)
    fleet.add("w1")
    load = json.dumps({"cpuPercent": 100, "memoryPercent": 10, "diskPercent": 10, "containerCount": 0})
    connection.execute("UPDATE container_workers SET current_load = %s, recent_cpu = %s", (load, [100.0, *before]))
    look(context)
    deploy.deploy(context, TESTS, fleet.organization, ServiceSpec("a", "image:1", Capacity(0.2, 64, 1)))
    assert [service.image for service in engine.observe().services.values()] == ["image:1"]
    context.db.close()
