"""What administrators and the monitor read of many workers, beside a thousandth of them, in one run:

a page, a deep page, search, completion   at most 50 ms each
figures of the cluster                    at most 300 ms
an idle pass of the monitor               at most 500 ms, and 3 % of a core with all that is read between the passes
what `doctor` asks the database           at most 1.5 s
a tenth of them dead at once              wanted: 15 s of 1,000,000 until told and held, less of fewer; not reached yet

`million.py --workers N` takes another number than 200,000; the other limits stay. The figures are medians, and the
share of a core is that of processes, not of the clock; whatever else the machine does makes the rest longer, so that
the ratio to the small fleet says more than a figure. Exit code 1 where a limit is missed.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
from _limits import Limit, hold
from heartbeats import SECRET
from rich.console import Console
from rich.table import Table

from skyctl import wiring
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import doctor_database, schema, workers
from skyctl.operations.monitor import alerts, evictions, health, sight
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from skyctl.settings import Settings

MANY, TIMES_FEW, ROUNDS = 200_000, 1_000, 7
PAGE_MS, STATS_MS, PASS_MS, DOCTOR_MS, CORE = 50.0, 300.0, 500.0, 1_500.0, 3.0
DEAD_SECONDS_OF_MILLION = 15.0
FILL = """
    INSERT INTO container_workers (id, name, hostname, ip_address, swarm_node_id, swarm_node_confirmed,
        swarm_node_confirmed_at, auth_token_hash, auth_token_expires_at, auth_token_issued_at, auth_token_key, status,
        concluded_status, status_changed_at, capacity, current_load, recent_cpu, last_heartbeat_at, machine_id, boot_id,
        instance_id, bound_at, registered_from, metadata)
    SELECT gen_random_uuid(), r || '-' || lpad(n::text, 7, '0'), r || '-host-' || n,
           '10.0.0.0'::inet + n, left(md5(n::text), 25), left(md5(n::text), 25), now(),
           encode(sha256(n::text::bytea), 'hex'),
           now() + interval '300 days', now() - interval '5 days', %(key)s, status, status, now() - interval '5 days',
           jsonb_build_object('cpuCores', 4 * (1 + n %% 8), 'memoryMb', 16384 * (1 + n %% 8), 'diskGb', 500),
           jsonb_build_object('cpuPercent', cpu, 'memoryPercent', 20 + n * 7 %% 60, 'diskPercent', 10 + n * 3 %% 70,
                              'containerCount', n %% 40),
           array_fill(cpu, ARRAY[10]), now() + interval '1 h' - 30 * random() * interval '1 s', md5('m' || n),
           md5('b' || n), gen_random_uuid()::text, now() - interval '5 days', '10.0.0.0'::inet + n,
           jsonb_build_object('osVersion', 'Debian GNU/Linux 12 (bookworm)', 'kernelVersion', '6.1.0-28-amd64',
               'dockerVersion', '27.3.1', 'agentVersion', '1.0.0', 'bootId', md5('b' || n), 'machineId', md5('m' || n),
               'takesTokens', true, 'containerCountKnown', true, 'clockOffsetSeconds', 0.01, 'region', r,
               'pool', 'pool-' || n %% 300)
    FROM (SELECT n, 'region-' || lpad((n %% 300)::text, 3, '0') AS r, (5 + n * 11 %% 70)::float8 AS cpu,
                 CASE WHEN n %% 2000 = 7 THEN 'offline' WHEN n %% 2000 = 9 THEN 'draining' ELSE 'active' END AS status
          FROM generate_series(1, %(number)s) AS n) AS drawn
"""
FACTS = """
    UPDATE container_workers SET last_heartbeat_at = now() - interval '1 day' WHERE status = 'offline';
    UPDATE container_workers SET drain_requested_at = now() WHERE status = 'draining';
"""


def fill(connection: psycopg.Connection, number: int, key: str) -> None:
    """Workers as agents make them, of 300 regions and pools; of each 2,000 one is offline, and one draining. Their
    heartbeats are of the next hour, so that nobody falls silent while others are measured, and their tokens of the key
    that signs, so that none is due."""
    connection.execute("TRUNCATE container_workers CASCADE")
    connection.execute(FILL, {"number": number, "key": key})
    connection.execute(FACTS)
    connection.execute("VACUUM ANALYZE container_workers")


def timed(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median time of an action, in ms."""
    action()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def reads(context: Context, connection: psycopg.Connection, number: int) -> dict[str, float]:
    """What administrators read, in ms."""
    deep = "SELECT name FROM container_workers ORDER BY name OFFSET %s LIMIT 1"
    [name] = connection.execute(deep, (number * 9 // 10,)).fetchone() or ("",)

    def doctor() -> None:
        for check in doctor_database.CHECKS.values():
            with context.db.transaction() as tx:
                check(tx)

    return {
        "first page": timed(lambda: workers.list_workers(context)),
        "page at nine tenths": timed(lambda: workers.list_workers(context, after=name)),
        "search by the beginning": timed(lambda: workers.list_workers(context, search="region-017*")),
        "completion": timed(lambda: workers.references_from(context, "region-017-0")),
        "search in the middle": timed(lambda: workers.list_workers(context, search="77"), 3),
        "figures of the cluster": timed(lambda: workers.stats(context)),
        "doctor": timed(doctor, 3),
    }


class Looker:
    """A monitor that leads, and what its looks cost."""

    def __init__(self, context: Context, connection: psycopg.Connection) -> None:
        self._context, self._connection = context, connection
        self._watch, self._sight = clock.Watch(), sight.Sight()
        self._lead()

    def _lead(self) -> None:
        term = leadership.lead(self._context, "benchmark", lambda _: True)
        assert term
        self._term = term

    def look(self) -> int:
        """One pass, its alerts raised, and what it calls for written down; the number of events."""
        done = health.check(self._term, self._watch, (), self._sight)
        alerts.raise_alerts(self._term)
        with self._term.recording() as tx:
            evictions.evict(tx)
        return len(done.events)

    def idle(self) -> dict[str, float]:
        """An idle pass, a look at all of them, and the percent of a core of such a look in each round, and
        of a pass at each of its steps."""
        self.look()
        pass_ms = timed(self.look)
        before, rounds = self._seconds(), 3
        for _ in range(rounds):
            self._sight.forget()
            self.look()
        all_of_them = (self._seconds() - before) / rounds
        before = self._seconds()
        for _ in range(ROUNDS):
            self.look()
        step = (self._seconds() - before) / ROUNDS
        round_seconds = sight.ROUND * self._context.health.heartbeat_timeout.total_seconds()
        return {
            "idle pass": pass_ms,
            "all of them": 1000 * all_of_them,
            "percent of a core": 100 * (all_of_them + sight.LOOKS * step) / round_seconds,
        }

    def dead(self, number: int) -> float:
        """In how many seconds a tenth of them that is dead, all of some regions, is concluded, told and held."""
        killed = self._connection.execute(
            "UPDATE container_workers SET last_heartbeat_at = now() - interval '5 min' "
            "WHERE status = 'active' AND right(metadata ->> 'region', 3)::int < 30"
        ).rowcount
        self._lead()  # a term that has rested for so long has ended
        started, found = time.perf_counter(), 0
        while found < killed:
            found += self.look()
        assert found >= killed > number // 20
        return time.perf_counter() - started

    def _seconds(self) -> float:
        """The CPU seconds of this process and of the server's processes that work for it."""
        asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ticks = 0
        for (pid,) in self._connection.execute(asked):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(stat[11]) + int(stat[12])
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=MANY)
    number = parser.parse_args().workers
    results: dict[int, dict[str, float]] = {}
    gc.freeze()  # as the program does once it is loaded
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-", dir="/var/tmp") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        url = stack.enter_context(EmbeddedPostgres(Path(folder) / "data").running())
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        context = wiring.connect(Settings(data_dir=Path(folder), jwt_secret=SECRET), url)
        stack.enter_context(closing(context.db))
        schema.initialize(context)
        for workers_now in (number // TIMES_FEW, number):
            fill(connection, workers_now, context.keys.signing().id)
            results[workers_now] = reads(context, connection, workers_now)
            looker = Looker(context, connection)
            results[workers_now] |= looker.idle()
        dead = looker.dead(number)
    report(results, dead)


def report(results: dict[int, dict[str, float]], dead: float) -> None:
    few, many = sorted(results)
    limits = dict.fromkeys(("first page", "page at nine tenths", "search by the beginning", "completion"), PAGE_MS)
    limits |= {"figures of the cluster": STATS_MS, "doctor": DOCTOR_MS, "idle pass": PASS_MS, "percent of a core": CORE}
    table = Table(title=f"medians of {ROUNDS}, in ms")
    for heading in ("what", f"{few:,}", f"{many:,}", "ratio", "limit"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, measured in results[many].items():
        small, limit = results[few][name], limits.get(name)
        shown = "" if limit is None else f"{limit:g}"
        table.add_row(name, f"{small:.1f}", f"{measured:.1f}", f"{measured / small:.1f}", shown)
    limit = DEAD_SECONDS_OF_MILLION * max(many / 1_000_000, 0.1)
    table.add_row(f"{many // 10:,} dead at once, in s", "", f"{dead:.1f}", "", f"wanted: {limit:g}")
    Console().print(table)
    units = dict.fromkeys(limits, "ms") | {"percent of a core": ""}
    hold(*(Limit(f"{name}, {many:,} workers", results[many][name], most, units[name]) for name, most in limits.items()))


if __name__ == "__main__":
    main()
