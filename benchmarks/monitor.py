"""What the monitor's looks cost, and how soon it flags the dead, in one run:

idle pass     at 100,000 workers: at most 100 ms, and less than 12 x the one at 1,000
500 dead      found and told in one pass, in ms
flagged       workers that die while 3,333 heartbeats/s arrive for 100,000: within 5 s of their timeout (p99)

Exit code 1 where a limit is missed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
from _limits import Limit, hold
from heartbeats import HERE, SECRET, prepare, server
from rich.console import Console
from rich.table import Table

from skyctl import wiring
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import schema
from skyctl.operations.monitor import alerts, health
from skyctl.operations.shared import clock, leadership
from skyctl.operations.shared.context import Context
from skyctl.settings import Settings

FEW, MANY, DEAD = 1_000, 100_000, 500
IDLE_MS, TIMES_FEW, FLAGGED_SECONDS = 100.0, 12.0, 5.0
ROUNDS = 15
RATE, CONNECTIONS, SECONDS, TIMEOUT, DYING = 3_333, 64, 60, 45, 300


def pass_ms(context: Context) -> float:
    """One look of a leading monitor, its alerts raised, in ms."""
    lease = leadership.lead(context, "benchmark", lambda _: True)
    assert lease
    started = time.perf_counter()
    health.check(lease, clock.Watch())
    alerts.raise_alerts(lease)
    return 1000 * (time.perf_counter() - started)


def passes(context: Context, connection: psycopg.Connection, workers: int) -> dict[str, float]:
    """Median times of an idle pass, and of one that finds the dead."""
    pass_ms(context)
    idle = statistics.median(pass_ms(context) for _ in range(ROUNDS))
    found = []
    for _ in range(3):
        revive = "UPDATE container_workers SET last_heartbeat_at = now() WHERE status = 'offline'"
        kill = (
            "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 h' "
            "WHERE id IN (SELECT id FROM container_workers LIMIT %s)"
        )
        connection.execute(kill, (min(DEAD, workers // 3),))
        found.append(pass_ms(context))
        connection.execute(revive)
        pass_ms(context)
    return {"idle": idle, "dead": statistics.median(found)}


def flagged(url: str, credentials: Path, connection: psycopg.Connection) -> list[float]:
    """For each worker that died, the seconds from its timeout to its event, in order."""
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now()")
    connection.execute("VACUUM ANALYZE container_workers")
    [before] = connection.execute("SELECT coalesce(max(seq), 0) FROM worker_events").fetchone() or (0,)
    dying = [worker_id for worker_id, _ in json.loads(credentials.read_text())[-DYING:]]
    environment = {
        "SKYCTL_DATABASE_URL": url,
        "SKYCTL_JWT_SECRET": SECRET,
        "WORKER_HEARTBEAT_TIMEOUT": str(TIMEOUT),
        "WORKER_HEARTBEAT_INTERVAL": "30",
    }
    living = credentials.with_name("living.json")
    living.write_text(json.dumps(json.loads(credentials.read_text())[:-DYING]))
    with ExitStack() as stack:
        port = stack.enter_context(server([sys.executable, "-m", "skyctl", "serve", "--port", "0"], environment))
        monitor = subprocess.Popen(
            [sys.executable, "-m", "skyctl", "monitor"], env=os.environ | environment, stderr=subprocess.DEVNULL
        )
        stack.callback(monitor.wait)
        stack.callback(monitor.terminate)
        connection.execute(
            "UPDATE container_workers SET last_heartbeat_at = now() - random() * interval '1 s' * %s "
            "WHERE id = ANY (%s::uuid[])",
            (TIMEOUT - 15, dying),
        )
        command = [
            sys.executable,
            str(HERE / "_load.py"),
            str(port),
            str(living),
            str(CONNECTIONS),
            str(SECONDS),
            str(RATE),
        ]
        load = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if set(load["statuses"]) != {"200"} or load["rate"] < 0.95 * RATE:
        raise SystemExit(f"the load was not as wanted: {load}")
    late = connection.execute(
        """
        SELECT extract(epoch FROM e.at - w.last_heartbeat_at) - %s FROM container_workers w
        JOIN worker_events e ON e.worker_id = w.id AND e.kind = 'status_changed' AND e.to_status = 'offline'
             AND e.seq > %s
        WHERE w.id = ANY (%s::uuid[]) ORDER BY 1
        """,
        (TIMEOUT, before, dying),
    ).fetchall()
    return [float(row[0]) for row in late]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        url = stack.enter_context(EmbeddedPostgres(Path(folder) / "data").running())
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        context = wiring.connect(Settings(data_dir=Path(folder), jwt_secret=SECRET), url)
        stack.enter_context(closing(context.db))
        schema.initialize(context)
        results = {}
        for workers in (FEW, MANY):
            connection.execute("TRUNCATE container_workers CASCADE")
            pairs = prepare(url, workers)
            connection.execute("UPDATE container_workers SET last_heartbeat_at = now() + interval '1 h'")
            connection.execute("VACUUM ANALYZE container_workers")
            results[workers] = passes(context, connection, workers)
        credentials = Path(folder) / "credentials.json"
        credentials.write_text(json.dumps(pairs))
        report(results, flagged(url, credentials, connection))


def report(results: dict[int, dict[str, float]], late: list[float]) -> None:
    times = results[MANY]["idle"] / results[FEW]["idle"]
    p50, p99 = (late[len(late) * share // 100] for share in (50, 99))
    table = Table(title=f"passes: median of {ROUNDS}; flagged: {len(late)} of {DYING} at {RATE} heartbeats/s")
    for heading in ("what", "measured", "limit"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row(f"idle pass at {FEW:,}", f"{results[FEW]['idle']:.1f} ms", "")
    table.add_row(f"idle pass at {MANY:,}", f"{results[MANY]['idle']:.1f} ms", f"{IDLE_MS:g} ms")
    table.add_row("", f"{times:.1f} x", f"{TIMES_FEW:g} x")
    table.add_row(f"pass that finds {DEAD} dead of {MANY:,}", f"{results[MANY]['dead']:.0f} ms", "")
    table.add_row("flagged after the timeout, p50", f"{p50:.2f} s", "")
    table.add_row("flagged after the timeout, p99", f"{p99:.2f} s", f"{FLAGGED_SECONDS:g} s")
    Console().print(table)
    hold(
        Limit(f"flagged of {DYING} dead", len(late), DYING, "", least=True),
        Limit(f"idle pass at {MANY:,}", results[MANY]["idle"], IDLE_MS, "ms"),
        Limit(f"the same, against {FEW:,}", times, TIMES_FEW, "x"),
        Limit("flagged after the timeout, p99", p99, FLAGGED_SECONDS, "s"),
    )


if __name__ == "__main__":
    main()
