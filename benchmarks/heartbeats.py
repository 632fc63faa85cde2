"""Heartbeats a second that are committed before they are answered, against other servers in the same run:

ceiling   the same connections and the same path, which answer nothing and ask no database
one each  one UPDATE and one commit a request, over a pool of 8 connections
beside    the `skyctl serve` of another build, by the interpreter that has it: `--beside OTHER/.venv/bin/python`

Each build has an embedded PostgreSQL of its own, as it sets that up by itself. PostgreSQL, server and load generator
share the machine. All are measured in turn, several times; a ratio is the median of those of the rounds, since the
machine's own speed drifts. Then each build beats at 0.8 of its median rate.

CPU (of `serve` and PostgreSQL), log (WAL) and growth are those of all heartbeats of a build. A million workers need
5 GB a build in --folder. On a machine that others use as well the CPU says more than the rates.

Exit code 1 unless the ratios of `AIMS` are reached.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
from _limits import Limit, hold
from rich.console import Console
from rich.table import Table

from skyctl.api.limits import Connections
from skyctl.host.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
OURS, BESIDE = "skyctl serve", "beside"
AIMS = {"ceiling": 0.65, "one each": 4.0, BESIDE: 1.7}
OF_MANY = 0.6  # of the ceiling, from MANY workers on
MANY, STEADY = 1_000_000, 0.8
WAL_BYTES, GROWTH, P99_MS = 250, 1.3, 250
Round = dict[str, dict[str, Any]]
SECRET = "benchmark-secret-that-is-long-enough-for-hs256"


class AnswerNothing:
    """The ceiling: the same connections and the same short way, but each heartbeat is answered as soon as it is
    there."""

    heartbeats: "AnswerNothing"

    def __init__(self) -> None:
        self.heartbeats = self
        self.connections = Connections()

    def receive(self, request: Any) -> None:
        request.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def one_update_each() -> Callable[..., Any]:
    """One statement and one commit a request, over 8 connections."""
    free: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    statement = (
        "UPDATE container_workers SET last_heartbeat_at = now(), current_load = %b::jsonb "
        "WHERE id = %b::uuid AND auth_token_hash = %b"
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not hasattr(app, "opened"):
            app.opened = True  # type: ignore[attr-defined]
            for _ in range(8):
                await free.put(
                    await psycopg.AsyncConnection.connect(os.environ["SKYCTL_DATABASE_URL"], autocommit=True)
                )
        load = json.loads((await receive())["body"])
        token = dict(scope["headers"])[b"authorization"].split()[1]
        connection = await free.get()
        try:
            worker_id = scope["path"].split("/")[3]
            await connection.execute(statement, (json.dumps(load), worker_id, hashlib.sha256(token).hexdigest()))
        finally:
            free.put_nowait(connection)
        body = b'{"success":true,"message":"Heartbeat received"}'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return app


def token_of(number: int) -> str:
    return f"token-{number:08d}-{'x' * 220}"


# The columns of a worker as agents make them; an older build has fewer.
COLUMNS = {
    "id": "md5(n::text)::uuid",
    "name": "'w' || n",
    "hostname": "'host-' || n",
    "ip_address": "'10.0.0.0'::inet + n",
    "auth_token_hash": "encode(sha256(('token-' || lpad(n::text, 8, '0') || '-' || repeat('x', 220))::bytea), 'hex')",
    "auth_token_expires_at": "now() + interval '300 days'",
    "status": "'active'",
    "concluded_status": "'active'",
    "capacity": """'{"cpuCores": 8, "memoryMb": 32768, "diskGb": 500}'""",
    "metadata": """jsonb_build_object('osVersion', 'Debian GNU/Linux 12 (bookworm)', 'kernelVersion', '6.1.0-28-amd64',
        'dockerVersion', '27.3.1', 'agentVersion', '1.0.0', 'bootId', md5('b' || n), 'machineId', md5('m' || n),
        'takesTokens', true, 'containerCountKnown', true, 'clockOffsetSeconds', 0.01,
        'region', 'region-' || n %% 300)""",
    "last_heartbeat_at": "now() - interval '30 s'",
    "machine_id": "md5('m' || n)",
    "boot_id": "md5('b' || n)",
    "recent_cpu": "array_fill(45.2, ARRAY[10])",
}


def prepare(url: str, workers: int) -> list[tuple[str, str]]:
    """Workers in the database, and their credentials."""
    known = "SELECT attname FROM pg_attribute WHERE attrelid = 'container_workers'::regclass"
    with psycopg.connect(url, autocommit=True) as connection:
        names = [name for (name,) in connection.execute(known) if name in COLUMNS]
        drawn = ", ".join(COLUMNS[name] for name in names)
        fill = f"INSERT INTO container_workers ({', '.join(names)}) SELECT {drawn} FROM generate_series(0, %s) AS n"
        connection.execute(fill, (workers - 1,))
        connection.execute("VACUUM ANALYZE container_workers")
    return [(worker_id_of(number), token_of(number)) for number in range(workers)]


def worker_id_of(number: int) -> str:
    return str(UUID(hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()))


@contextmanager
def server(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """A server process and its port, which it says on stderr."""
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True, cwd=HERE)
    assert process.stderr
    try:
        line = next(line for line in process.stderr if "listening on " in line)
        yield int(line.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


class Build:
    """A build of skyctl, its database, and what its heartbeats have cost so far."""

    def __init__(self, name: str, python: str, folder: Path, processes: int) -> None:
        self.name, self.processes = name, processes
        self._skyctl = [python, "-P", "-m", "skyctl"]
        self._environment = {"SKYCTL_DATA_DIR": str(folder), "SKYCTL_JWT_SECRET": SECRET}
        folder.mkdir(mode=0o755)
        database = EmbeddedPostgres(folder)
        self.url, self._pid_file = database.url, database.data / "postmaster.pid"
        self._beats = self._bytes = 0
        self._seconds = 0.0
        self._first_size = 0

    @contextmanager
    def running(self, workers: int) -> Iterator[None]:
        """Its database, with so many workers, until the end of the block: as long as a `serve` of it uses it."""
        make = [*self._skyctl, "--quiet", "db", "init"]
        subprocess.run(make, check=True, env=os.environ | self._environment, stdout=subprocess.DEVNULL)
        with server([*self._skyctl, "serve", "--port", "0"], self._environment):
            prepare(self.url, workers)
            self._first_size = self._asked("SELECT pg_total_relation_size('container_workers')")
            yield

    def beat(self, load: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        """Measure a server of it."""
        before = self._written()
        several = ["--processes", str(self.processes)] if self.processes > 1 else []
        with server([*self._skyctl, "serve", "--port", "0", *several], self._environment) as port:
            used = self._used()
            result = load(port)
            self._seconds += self._used() - used
        self._beats += result["number"]
        self._bytes += self._written() - before
        return result

    def wal(self) -> float:
        """The bytes of log for each heartbeat."""
        return self._bytes / self._beats

    def cpu(self) -> float:
        """The CPU of `serve` and of PostgreSQL for each heartbeat, in us."""
        return 1e6 * self._seconds / self._beats

    def _used(self) -> float:
        """The CPU seconds so far of the servers that run, and of what the database has waited for."""
        postmaster = psutil.Process(int(self._pid_file.read_text().split()[0]))
        seconds = sum(postmaster.cpu_times()[:4])
        for each in [*psutil.Process().children(recursive=True), *postmaster.children()]:
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                seconds += sum(each.cpu_times()[:2])
        return seconds

    def growth(self) -> float:
        """The size of the workers' table, of that before."""
        return self._asked("SELECT pg_total_relation_size('container_workers')") / self._first_size

    def _written(self) -> int:
        return self._asked("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")

    def _asked(self, query: str) -> int:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return int(connection.execute(query).fetchone()[0])  # type: ignore[index]


def measure(port: int, args: argparse.Namespace, rate: float = 0) -> dict[str, Any]:
    load = [str(HERE / "_load.py"), str(port), str(args.workers), str(args.connections), str(args.seconds), str(rate)]
    done = subprocess.run([sys.executable, *load], check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    if set(result["statuses"]) != {"200"}:
        raise SystemExit(f"not every answer was 200: {result['statuses']}")
    return result


def compare(builds: list[Build], args: argparse.Namespace) -> tuple[list[Round], Round]:
    """Each server's result, round by round; and each build's at a steady rate."""
    mine = [sys.executable, str(HERE / "heartbeats.py"), "--serve"]
    others = {"ceiling": "ceiling"} | ({} if args.workers >= MANY else {"one each": "one_update_each"})
    rounds = []
    for _ in range(args.rounds):
        results: Round = {}
        for name, served in others.items():
            with server([*mine, served], {"SKYCTL_DATABASE_URL": builds[0].url}) as port:
                results[name] = measure(port, args)
        for build in builds:
            results[build.name] = build.beat(lambda port: measure(port, args))
        rounds.append(results)
    steady = {}
    for build in builds:
        rate = STEADY * statistics.median(results[build.name]["rate"] for results in rounds)
        steady[build.name] = build.beat(lambda port, rate=rate: measure(port, args, rate))  # type: ignore[misc]
    return rounds, steady


def serve(name: str) -> None:
    import uvicorn

    from skyctl.api.http_protocol import HeartbeatConnection
    from skyctl.api.server import listen

    listener = listen("127.0.0.1", 0)
    sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
    served: Any = (AnswerNothing(), HeartbeatConnection) if name == "ceiling" else (one_update_each(), "httptools")
    config = uvicorn.Config(
        served[0],
        http=served[1],
        interface="asgi3",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--beside", metavar="PYTHON", help="the interpreter of another build")
    parser.add_argument("--folder", default="/var/tmp")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-", dir=args.folder) as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        pythons = {OURS: sys.executable} | ({BESIDE: args.beside} if args.beside else {})
        builds = []
        for number, (name, python) in enumerate(pythons.items()):
            builds.append(Build(name, python, Path(folder) / str(number), args.processes))
            stack.enter_context(builds[-1].running(args.workers))
        limits = report(builds, *compare(builds, args), args)
    hold(*limits)


def report(builds: list[Build], rounds: list[Round], steady: Round, args: argparse.Namespace) -> list[Limit]:
    """Print the figures; return them with their limits."""
    title = f"{args.workers:,} workers, {args.connections} connections, median of {args.rounds} rounds"
    table = Table(title=f"{title} of {args.seconds:g} s")
    for heading in (
        "server",
        "beats/s",
        "p50 ms",
        "p99 ms",
        "ratio",
        "least",
        "most",
        "p99 at 0.8",
        "CPU us",
        "WAL B",
        "growth",
    ):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    aims = AIMS | ({"ceiling": OF_MANY} if args.workers >= MANY else {})
    limits, by_name = [], {build.name: build for build in builds}
    for name in rounds[0]:
        figures = [statistics.median(results[name][figure] for results in rounds) for figure in ("rate", "p50", "p99")]
        each = sorted(results[OURS]["rate"] / results[name]["rate"] for results in rounds)
        ratios = [statistics.median(each), each[0], each[-1]]
        shown = ["1", "", ""] if name == OURS else [f"{ratio:.2f} x" for ratio in ratios]
        build = by_name.get(name)
        cost = [steady[name]["p99"], build.cpu(), build.wal()] if build else []
        cost_shown = [f"{figure:.0f}" for figure in cost] + ([f"{build.growth():.2f} x"] if build else [])
        table.add_row(name, f"{figures[0]:,.0f}", f"{figures[1]:.1f}", f"{figures[2]:.1f}", *shown, *cost_shown)
        limits += [Limit(f"rate against {name}", ratios[0], aims[name], "x", least=True)] if name in aims else []
    Console(width=120).print(table)
    ours = by_name[OURS]
    return [
        *limits,
        Limit("log of a heartbeat", ours.wal(), WAL_BYTES, "bytes"),
        Limit("growth of the table", ours.growth(), GROWTH, "x"),
        Limit("p99 at 0.8 of the rate", steady[OURS]["p99"], P99_MS, "ms"),
    ]


if __name__ == "__main__":
    main()
