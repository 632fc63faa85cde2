"""What a long history costs: each command, each pass of a monitor, with a few rows of every kind that is kept and with
a million of each, in one run. At most 1.5 x; exit code 1 where that is missed. `--rows N` takes another number.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import LiteralString

import psycopg
from _limits import Limit, hold
from monitor import pass_ms
from rich.console import Console
from rich.table import Table

from skyctl import wiring
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import schema
from skyctl.operations.monitor import migrations, retention, services
from skyctl.operations.shared import leadership
from skyctl.operations.shared.context import Context
from skyctl.settings import Settings

SECRET = "a-secret-for-benchmarks-that-is-long-enough"
FEW, MANY, TIMES = 1_000, 1_000_000, 1.5
ROUNDS, WORKERS, SERVICES = 5, 100, 1_000
COMMANDS = (
    "workers list",
    "workers show w1",
    "workers why w1",
    "cluster stats",
    "events",
    "events --since 0 --limit 50",
    "alerts list",
    "services list",
    "services show s1",
    "migrations list",
    "migrations list --worker w1",
    "migrations show {migration}",
    "doctor",
)
# A history of half a year, evenly spread over workers and services, the youngest first to be made.
FIXED: tuple[LiteralString, ...] = (
    "INSERT INTO users (email, role) VALUES ('admin@example.com', 'admin')",
    "INSERT INTO organizations (name, slug) VALUES ('o', 'o')",
    "INSERT INTO container_workers (name, hostname, ip_address, auth_token_hash, status, last_heartbeat_at) "
    "SELECT 'w' || n, 'w' || n, '10.0.0.1', '', 'active', now() + interval '1 d' FROM generate_series(1, 100) n",
    "INSERT INTO container_services (organization_id, name, slug, status) "
    "SELECT o.id, 's' || n, 's' || n, 'running' FROM organizations o, generate_series(1, 1000) n",
    "CREATE TABLE w AS SELECT id, name, row_number() OVER () - 1 AS number FROM container_workers",
    "CREATE TABLE s AS SELECT id, row_number() OVER () - 1 AS number FROM container_services",
    "INSERT INTO container_deployments (service_id, worker_id, image_tag, status, by_skyctl) "
    "SELECT s.id, w.id, 'app:1', 'running', true FROM s JOIN w ON w.number = s.number % 100",
    "UPDATE container_services SET current_deployment_id = d.id FROM container_deployments d "
    "WHERE d.service_id = container_services.id",
)
HISTORY: tuple[LiteralString, ...] = (
    "INSERT INTO worker_events (kind, worker_id, worker_name, from_status, to_status, at) "
    "SELECT 'status_changed', w.id, w.name, 'active', 'unhealthy', now() - interval '80 d' * (1 - n::float / %(rows)s) "
    "FROM generate_series(1, %(rows)s) n JOIN w ON w.number = n %% 100 ORDER BY n",
    "INSERT INTO worker_alerts (kind, worker_id, title, message, at) "
    "SELECT 'worker_offline', w.id, 't', 'm', now() - interval '170 d' * (1 - n::float / %(rows)s) "
    "FROM generate_series(1, %(rows)s) n JOIN w ON w.number = n %% 100 ORDER BY n",
    "INSERT INTO alert_deliveries (alert_id, channel, attempts, delivered_at) "
    "SELECT id, 'json:0123', 1, at FROM worker_alerts",
    "INSERT INTO notifications (user_id, type, message, metadata, created_at) SELECT u.id, a.kind, a.message, "
    "jsonb_build_object('alertId', a.id, 'alertType', a.kind), a.at FROM worker_alerts a, users u",
    "INSERT INTO activity_logs (event_type, entity_type, message, metadata, created_at) SELECT 'alert.' || a.kind, "
    "'system', a.message, jsonb_build_object('alertId', a.id, 'alertType', a.kind), a.at FROM worker_alerts a",
    "INSERT INTO container_deployments (service_id, worker_id, image_tag, status, by_skyctl, created_at, updated_at) "
    "SELECT s.id, w.id, 'app:1', 'stopped', true, at, at FROM generate_series(1, %(rows)s) n "
    "JOIN s ON s.number = n %% 1000 JOIN w ON w.number = n %% 100 "
    "CROSS JOIN LATERAL (SELECT now() - interval '170 d' * (1 - n::float / %(rows)s) AS at) t",
    "INSERT INTO container_migrations (service_id, source_deployment_id, source_worker_id, target_worker_id, state, "
    "created_at, updated_at, finished_at, source_stopped_at, summed_up_at) "
    "SELECT service_id, id, worker_id, worker_id, 'completed', created_at, created_at, created_at, created_at, "
    "created_at FROM container_deployments WHERE status = 'stopped'",
)


def command_ms(environment: dict[str, str], command: str) -> float:
    """The time of one command, in ms; what it finds does not matter."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "skyctl", *command.split()], env=environment, capture_output=True, text=True
    )
    if done.returncode and not command.startswith("doctor"):
        raise SystemExit(f"{command}: {done.stderr}")
    return 1000 * (time.perf_counter() - started)


def step_ms(context: Context, act: Callable[[leadership.Term], object]) -> float:
    """The time of a step of the leading monitor, in ms."""
    term = leadership.lead(context, "benchmark", lambda _: True)
    assert term
    started = time.perf_counter()
    act(term)
    return 1000 * (time.perf_counter() - started)


def measure(context: Context, connection: psycopg.Connection, url: str) -> dict[str, float]:
    """Median times of everything, in ms."""
    [migration] = connection.execute("SELECT id FROM container_migrations LIMIT 1").fetchone() or ()
    environment = {
        **os.environ,
        "SKYCTL_DATABASE_URL": url,
        "SKYCTL_JWT_SECRET": SECRET,
        "SKYCTL_API_URL": "http://127.0.0.1:9",
    }
    acts: dict[str, Callable[[], float]] = {
        f"skyctl {command}": partial(command_ms, environment, command.format(migration=migration))
        for command in COMMANDS
    }
    acts["a look at the workers and alerts"] = lambda: pass_ms(context)
    acts["a step of migrations"] = lambda: step_ms(context, migrations.reconcile_migrations)
    acts["a look at pending deployments"] = lambda: step_ms(context, services._pending_engine_work)
    acts["a pass of retention"] = lambda: step_ms(context, retention.prune)
    times = {}
    for name, act in acts.items():
        act()
        times[name] = statistics.median(act() for _ in range(ROUNDS))
    return times


def fill(connection: psycopg.Connection, rows: int) -> None:
    """Put so many rows of each kind in place of those that are there."""
    connection.execute("TRUNCATE worker_events, worker_alerts, notifications, activity_logs, retention_sweeps CASCADE")
    connection.execute("TRUNCATE container_migrations")
    connection.execute("DELETE FROM container_deployments WHERE status = 'stopped'")
    for statement in HISTORY:
        connection.execute(statement, {"rows": rows})
    connection.execute("UPDATE monitor_leases SET alerted_seq = (SELECT max(seq) FROM worker_events)")
    connection.execute("VACUUM ANALYZE")


def main() -> None:
    """Measure with few rows and with many, and say how they compare."""
    many = int(sys.argv[sys.argv.index("--rows") + 1]) if "--rows" in sys.argv else MANY
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        url = stack.enter_context(EmbeddedPostgres(Path(folder) / "data").running())
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        context = wiring.connect(Settings(data_dir=Path(folder), jwt_secret=SECRET), url)
        stack.enter_context(closing(context.db))
        schema.initialize(context)
        for statement in FIXED:
            connection.execute(statement)
        step_ms(context, lambda _: None)
        fill(connection, FEW)
        few = measure(context, connection, url)
        fill(connection, many)
        results = measure(context, connection, url)
    table = Table(title=f"{many:,} rows of each kind against {FEW:,}: ms, median of {ROUNDS}")
    for heading in ("what", f"{FEW:,}", f"{many:,}", "ratio"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, took in results.items():
        table.add_row(name, f"{few[name]:.0f}", f"{took:.0f}", f"{took / few[name]:.2f} x")
    Console(width=110).print(table)
    hold(*(Limit(f"{name}, {many:,} rows", took / few[name], TIMES, "x") for name, took in results.items()))


if __name__ == "__main__":
    main()
