"""Reading many workers: pages by place, search by the beginning, counts and sums; and that none of it reads all."""

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from skyctl.domain.cluster import Capacity, Heartbeat, Load
from skyctl.domain.errors import ValidationError, WorkerNotFound
from skyctl.domain.states import WorkerOrder, WorkerStatus
from skyctl.operations.admin import workers
from skyctl.operations.agents import heartbeats
from skyctl.operations.monitor import health, node_claims
from skyctl.operations.monitor.sight import Sight
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from skyctl.store import counts, db
from tests.support.helpers import add_worker, eventually

MANY = 20_001
HEARD = (WorkerStatus.ACTIVE, WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING)


def names(context: Context, **wanted: Any) -> list[str]:
    return [worker.name for worker in workers.list_workers(context, **wanted).workers]


def add(connection: psycopg.Connection, number: int) -> None:
    """Workers that are all alike, by one statement."""
    connection.execute(
        "INSERT INTO container_workers (name, hostname, ip_address, auth_token_hash, status, concluded_status,"
        " last_heartbeat_at, capacity, current_load)"
        """ SELECT 'w' || n, 'Host' || n, '10.0.0.1', 'x', 'active', 'active', now(),
               '{"cpuCores": 4, "memoryMb": 1000, "diskGb": 10}', '{"cpuPercent": 50, "containerCount": 2}'"""
        " FROM generate_series(1, %s) AS n",
        (number,),
    )
    connection.execute("ANALYZE container_workers")


@pytest.mark.parametrize("seed", range(5))
def test_pages_by_place_are_complete_and_without_doubles_while_workers_come_and_go(
    context: Context, connection: psycopg.Connection, seed: int
) -> None:
    drawn = random.Random(seed)
    stay = {add_worker(connection, name=drawn.choice("abc")) for _ in range(20)}
    others = [add_worker(connection, name=drawn.choice("abc")) for _ in range(20)]
    seen, place = [], None
    while True:
        page = workers.list_workers(context, after=place, limit=3)
        seen += [worker.id for worker in page.workers]
        if (place := page.next) is None:
            break
        connection.execute("DELETE FROM container_workers WHERE id = %s", (others.pop(),)) if others else None
        add_worker(connection, name=drawn.choice("abc"))
    assert stay <= set(seen)
    assert len(seen) == len(set(seen))


def test_a_place_is_a_workers_or_that_of_one_that_was_removed(context: Context, connection: psycopg.Connection) -> None:
    ids = {name: add_worker(connection, name=name) for name in ("a", "b", "c", "d:e")}
    place = workers.list_workers(context, limit=2).next
    connection.execute("DELETE FROM container_workers WHERE name = 'b'")
    assert names(context, after=place) == ["c", "d:e"]
    assert names(context, after="a") == names(context, after=str(ids["a"])[:8]) == ["c", "d:e"]
    assert names(context, after=workers.list_workers(context, limit=3).next) == []
    assert workers.list_workers(context, after="a", limit=1).total == 3
    with pytest.raises(WorkerNotFound, match="there is no worker 'b'"):
        names(context, after="b")
    with pytest.raises(ValidationError, match="is a place among the names"):
        names(context, after="a", order=WorkerOrder.CPU)
    assert workers.list_workers(context, order=WorkerOrder.CPU, limit=1).next is None


def test_an_asterisk_searches_the_beginning_and_nothing_else_does(
    context: Context, connection: psycopg.Connection
) -> None:
    first = add_worker(connection, name="Edge-1", hostname="one", ip_address="10.1.2.3")
    add_worker(connection, name="my-edge", hostname="Two.example", ip_address="192.168.10.1")
    assert names(context, search="edge*") == ["Edge-1"]
    assert names(context, search="edge") == ["Edge-1", "my-edge"]
    assert names(context, search="TWO.*") == ["my-edge"]
    assert names(context, search="10.*") == ["Edge-1"]
    assert names(context, search="10.1") == ["Edge-1", "my-edge"]
    assert names(context, search=f"{str(first)[:10].upper()}*") == names(context, search=str(first)[2:12]) == ["Edge-1"]
    assert names(context, search="%*") == names(context, search="_") == []
    assert sorted(names(context, search="*")) == ["Edge-1", "my-edge"]


def test_completion_offers_names_by_their_beginning_and_ids_of_odd_ones(
    context: Context, connection: psycopg.Connection
) -> None:
    add_worker(connection, name="Web-1")
    add_worker(connection, name="web-2")
    odd = add_worker(connection, name="odd name")
    assert workers.references_from(context, "web") == ["web-2"]
    assert workers.references_from(context, "") == sorted(["Web-1", "web-2", str(odd)])
    assert workers.references_from(context, str(odd)[:5]) == [str(odd)]
    assert workers.references_from(context, "odd") == []


def test_what_is_not_counted_or_summed_is_said_to_be_so(context: Context, connection: psycopg.Connection) -> None:
    add(connection, MANY)
    listed = workers.list_workers(context)
    assert (listed.total, listed.total_is_least) == (MANY, False)
    begun = workers.list_workers(context, search="w*", limit=2)
    assert (begun.total, begun.total_is_least, len(begun.workers)) == (10_000, True, 2)
    few = workers.list_workers(context, search="host200*", limit=2)
    assert (few.total, few.total_is_least) == (13, False)  # 200, 2000 to 2009, 20000 and 20001
    figures = workers.stats(context)
    assert figures.by_status == {WorkerStatus.ACTIVE: MANY}
    assert figures.sampled is not None
    assert 0 < figures.sampled < MANY
    assert figures.capacity.cpu_cores == pytest.approx(4 * MANY)
    assert figures.load.container_count == 2 * MANY
    assert figures.load.cpu_percent == figures.plain_load.cpu_percent == pytest.approx(50)


def test_the_count_follows_whatever_comes_and_goes(context: Context, connection: psycopg.Connection) -> None:
    def counted() -> int:
        with context.db.transaction() as tx:
            return counts.workers_in_all(tx)

    add(connection, 5)
    assert counted() == 5
    columns = "id, name, hostname, ip_address, auth_token_hash"
    connection.execute(
        f"INSERT INTO container_workers ({columns}) SELECT {columns} FROM container_workers ON CONFLICT DO NOTHING"
    )
    connection.execute("DELETE FROM container_workers WHERE name IN ('w1', 'w2')")
    assert counted() == 3
    for _ in range(2):
        with context.db.transaction() as tx:
            counts.compact(tx)
        assert counted() == 3
    assert connection.execute("SELECT count(*) FROM worker_counts").fetchone() == (1,)
    connection.execute("TRUNCATE container_workers CASCADE")
    assert counted() == 0


FIGURES = st.integers(0, 100)
WORKERS = st.lists(
    st.tuples(st.none() | st.sampled_from(list(WorkerStatus)), FIGURES, FIGURES, FIGURES, FIGURES, st.booleans()),
    max_size=8,
)


@settings(max_examples=40)
@given(fleet=WORKERS)
def test_the_figures_of_a_small_fleet_are_those_of_all_its_workers(
    context: Context, connection: psycopg.Connection, fleet: list[tuple[WorkerStatus | None, int, int, int, int, bool]]
) -> None:
    connection.execute("DELETE FROM container_workers")
    for status, cores, cpu, memory, containers, is_away in fleet:
        add_worker(
            connection,
            status=status,
            capacity=f'{{"cpuCores": {cores}, "memory_mb": 8, "diskGb": 1}}',
            current_load=f'{{"cpuPercent": {cpu}, "memory_percent": {memory}, "containerCount": {containers}}}',
            engine_away_since="now" if is_away else None,
        )
    figures, heard = workers.stats(context), [each for each in fleet if each[0] in HEARD]
    number, cores = len(heard), sum(each[1] for each in heard)
    of_status = [each[0] or WorkerStatus.PENDING for each in fleet]
    assert figures.by_status == {status: of_status.count(status) for status in of_status}
    assert figures.capacity == Capacity(cores, 8 * number, number)
    assert figures.load.container_count == sum(each[4] for each in heard if not each[5])
    weighted = sum(each[1] * each[2] for each in heard)
    assert figures.load.cpu_percent == pytest.approx(weighted / cores if cores else 0)
    assert figures.load.memory_percent == pytest.approx(sum(each[3] for each in heard) / number if number else 0)
    assert figures.plain_load.cpu_percent == pytest.approx(sum(each[2] for each in heard) / number if number else 0)
    assert figures.sampled is None


@contextmanager
def asked() -> Iterator[list[tuple[str, Any]]]:
    """What is asked of any database within the block."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_no_page_search_or_pass_has_to_read_every_worker(context: Context, connection: psycopg.Connection) -> None:
    add(connection, 50)
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    sight, watch = Sight(small_blocks=0, range_blocks=1), clock.Watch()
    health.check(term, watch, (), sight)
    reads: dict[str, Callable[[], object]] = {
        "first page": lambda: workers.list_workers(context, limit=10),
        "deep page": lambda: workers.list_workers(context, limit=10, after="w30"),
        "search": lambda: workers.list_workers(context, limit=10, search="w1*"),
        "status": lambda: workers.list_workers(context, limit=10, statuses=[WorkerStatus.OFFLINE]),
        "completion": lambda: workers.references_from(context, "w1"),
        "pass": lambda: health.check(term, watch, (), sight),
    }
    connection.execute("SET enable_seqscan = off")  # of so few it would be the best; of many a plan needs another way
    for name, read in reads.items():
        with asked() as statements:
            read()
        selects = [each for each in statements if "container_workers" in each[0] and each[0].startswith("SELECT")]
        assert selects, name
        for statement, parameters in selects:
            plan = connection.execute(f"EXPLAIN {statement}".encode(), parameters).fetchall()
            scans = [row[0] for row in plan if "Seq Scan on container_workers" in row[0]]
            assert scans == [], (name, statement)


def test_claims_are_found_without_reading_every_worker(context: Context, connection: psycopg.Connection) -> None:
    add(connection, 3_000)
    connection.execute(
        "UPDATE container_workers SET bound_at = now(), machine_id = name, swarm_node_id = name,"
        " swarm_node_confirmed = name"
    )
    add_worker(connection, "new", swarm_node_claim="n")
    connection.execute("VACUUM ANALYZE container_workers")
    term = leadership.lead(context, "tests", lambda _: True)
    assert term
    with asked() as statements:
        node_claims.check_claims(term, all_of_them=True)
    connection.execute("BEGIN")
    for statement, parameters in statements:
        if statement.startswith("SET LOCAL"):
            connection.execute(statement.encode())
        elif "FROM container_workers" in statement:
            rows = connection.execute(f"EXPLAIN {statement}".encode(), parameters).fetchall()
            plan = "\n".join(row[0] for row in rows)
            assert "Seq Scan" not in plan
            # an index of the few that are asked for, or of the ids that are
            assert re.search("_claims_idx|_unregistered_idx|Index Cond", plan), (statement, plan)


def test_a_pass_over_many_finds_whom_it_watches_and_whom_somebody_named(
    context: Context, connection: psycopg.Connection
) -> None:
    add(connection, 30)
    term, sight, watch = leadership.lead(context, "tests", lambda _: True), Sight(0, 1), clock.Watch()
    assert term

    def changed() -> set[tuple[str | None, str | None]]:
        return {(event.worker_name, event.to_status) for event in health.check(term, watch, (), sight).events}

    assert changed() == set()
    connection.execute("UPDATE container_workers SET drain_requested_at = now() WHERE name = 'w1'")
    full = load(connection, "w2", '{"diskPercent": 99}')
    assert changed() == {("w1", "draining")}  # nobody has named the other, and its turn has not come
    sight.name([full])
    assert changed() == {("w2", "unhealthy")}


def test_a_range_is_read_again_before_somebody_there_can_be_silent_and_in_its_turn(
    context: Context, connection: psycopg.Connection
) -> None:
    add(connection, 30)
    sight, now, policy = Sight(0, 1), datetime.now(UTC), context.health

    def suspects(seconds: float, silent_since: datetime) -> set[UUID]:
        later = now + timedelta(seconds=seconds)
        return set(sight.look(context.db.transaction, 1, policy, later, silent_since, ()).suspects)

    long_ago = now - policy.heartbeat_timeout
    assert suspects(0, long_ago) == set()
    silent = load(connection, "w3", "{}")
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() + interval '1 min' WHERE name <> 'w3'")
    full = load(connection, "w4", '{"memoryPercent": 99}')
    assert suspects(0, long_ago) == set()  # no time has passed
    assert silent in suspects(0, now + timedelta(seconds=50))
    assert full in suspects(90, long_ago)
    connection.execute("VACUUM FULL container_workers")  # every row is elsewhere
    full = load(connection, "w5", '{"memoryPercent": 99}')
    assert full in suspects(90, long_ago)


def test_news_of_a_heartbeat_names_the_worker(context: Context, connection: psycopg.Connection) -> None:
    worker_id = add_worker(connection, status="active", last_heartbeat_at="now")
    said = Heartbeat(str(worker_id), heartbeats.fingerprint("t"), Load(1, 99, 1, 0))
    with context.db.listening() as news:
        assert asyncio.run(heartbeats.record(context, [said])) == [None]
        assert eventually(lambda: db.drain(news)) == [str(worker_id)]


def load(connection: psycopg.Connection, name: str, load: str) -> UUID:
    """A worker whose last heartbeat said this."""
    row = connection.execute(
        "UPDATE container_workers SET current_load = %s WHERE name = %s RETURNING id", (load, name)
    ).fetchone()
    assert row
    return UUID(str(row[0]))
