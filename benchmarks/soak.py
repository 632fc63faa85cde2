"""An hour of everything at once: simulated agents that join, fall silent, take new tokens and are drained, followers,
administrators, while files run out, the table of workers is locked, the database's clock is set, and, within the first
ten minutes, `serve`, the monitor and PostgreSQL are killed. Shows memory and open files of `serve` and the monitor.

Exit code 1 where a worker that was never silent went offline, a heartbeat that was acknowledged is not in the database,
a silence was told more than once, or memory grew by more than a tenth an hour.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import resource
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
import uvloop
from _agents import Connection, beating, registering
from rich.console import Console
from rich.table import Table
from storm import SECRET, prepare

from skyagent.backoff import jittered, retry_delay
from skyctl.host.postgres import EmbeddedPostgres

BEAT_SECONDS, SILENT_SECONDS, SETTLED_SECONDS = 30.0, 240.0, 600.0
MOST_GROWTH = 0.1
Fault = Callable[[], Coroutine[Any, Any, None]]
CLOCK = "CREATE OR REPLACE FUNCTION skyctl_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT {} $$"


@dataclass
class Host:
    """A simulated host: the heartbeats that it sent and the last that was acknowledged, as numbers of containers."""

    number: int
    worker_id: str
    token: str
    acknowledged: int = 0
    silent_until: float = 0.0
    silences: int = 0


@dataclass
class Soak:
    """The processes under test, the hosts, and what was seen."""

    url: str
    port: int
    environment: dict[str, str]
    admin: str
    hosts: list[Host]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, float, int]]] = field(default_factory=lambda: {"serve": [], "monitor": []})
    answers: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self.began

    async def skyctl(self, *arguments: str) -> int:
        """Run a command to its end; return its exit code."""
        quiet = asyncio.subprocess.DEVNULL
        command = [sys.executable, "-m", "skyctl", *arguments]
        process = await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=quiet, stderr=quiet)
        return await process.wait()

    async def keep_up(self, name: str, *arguments: str) -> None:
        """Run a service, and start it again whenever it ends, as systemd would."""
        with Path(os.devnull).open("wb") as nowhere:
            while True:
                command = [sys.executable, "-m", "skyctl", *arguments]
                started = await asyncio.create_subprocess_exec(
                    *command, env=self.environment, stderr=nowhere, stdout=nowhere
                )
                self.processes[name] = started
                try:
                    await started.wait()
                except asyncio.CancelledError:
                    started.terminate()
                    await started.wait()
                    raise
                self.faults[f"{name} started again"] += 1
                await asyncio.sleep(1)

    async def live(self, host: Host) -> None:
        """Register and beat for ever, but for the silences."""
        connection, is_registered, failures, number = Connection(self.port), False, 0, 0
        while True:
            if (wait := host.silent_until - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            number += 1
            sent = (
                beating(host.worker_id, host.token, number) if is_registered else registering(host.number, host.token)
            )
            status, after = await connection.ask(sent)
            self.answers[f"{'beat' if is_registered else 'register'} {status}"] += 1
            if status == "200":
                host.acknowledged = number
            if status in ("200", "201"):
                host.token = json.loads(connection.body).get("newToken", host.token)
                failures, delay = 0, jittered(BEAT_SECONDS, random.random()) if is_registered else 0.0
                is_registered = True
            else:
                failures += 1
                delay = retry_delay(failures, random.random(), after)
            await asyncio.sleep(delay)

    async def look_for_losses(self) -> None:
        """Compare what was acknowledged with what is stored."""
        known = {host.worker_id: host.acknowledged for host in random.sample(self.hosts, 50)}
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            query = "SELECT id, (current_load ->> 'containerCount')::int FROM container_workers WHERE id = ANY(%s)"
            rows = await (await connection.execute(query, [[UUID(each) for each in known]])).fetchall()
        self.lost += sum((stored or 0) < known[str(worker_id)] for worker_id, stored in rows)

    async def sample(self) -> None:
        """Note memory and open files of the processes."""
        for name, process in self.processes.items():
            if name in self.samples and process.returncode is None:
                seen = psutil.Process(process.pid)
                if memory := seen.memory_info().rss:  # none of one that was killed just now
                    self.samples[name].append((self.passed, memory / 2**20, seen.num_fds()))

    async def silence(self) -> None:
        """Let a host fall silent for twice the time after which it is offline."""
        host = random.choice([host for host in self.hosts if host.silent_until < time.monotonic()])
        host.silences += 1
        host.silent_until = time.monotonic() + SILENT_SECONDS

    async def join(self) -> None:
        """Invite one more host."""
        connection = Connection(self.port)
        head = f"POST /api/workers/generate-script HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {self.admin}\r\n"
        status, _ = await connection.ask(f"{head}Content-Length: 0\r\n\r\n".encode())
        self.answers[f"invite {status}"] += 1
        if status == "200":
            made = json.loads(connection.body)["data"]
            self.hosts.append(Host(len(self.hosts), made["workerId"], made["token"]))
            asyncio.get_running_loop().create_task(self.live(self.hosts[-1]))
        connection.close()

    async def administer(self) -> None:
        """List, drain, take back, replace a token."""
        worker = random.choice(self.hosts).worker_id
        for command in (["list"], ["drain", worker], ["undrain", worker], ["rotate-token", worker]):
            self.answers[f"{command[0]} {await self.skyctl('workers', *command)}"] += 1

    async def lock(self) -> None:
        """Hold what CREATE INDEX takes."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute("LOCK TABLE container_workers IN SHARE MODE")
            await asyncio.sleep(27)
            await connection.rollback()

    async def set_clock(self) -> None:
        """Set the database's clock back by an hour, and forward again."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            [before] = (
                await (await connection.execute("SELECT pg_get_functiondef('skyctl_now'::regproc)")).fetchone() or ()
            )
            await connection.execute(CLOCK.format("now() - interval '1 h'"))
            await asyncio.sleep(60)
            await connection.execute(before)

    async def run_out_of_files(self) -> None:
        """Let `serve` open no file more for some seconds."""
        pid = self.processes["serve"].pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (psutil.Process(pid).num_fds(), hard))
        await asyncio.sleep(10)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    async def kill(self, name: str) -> None:
        """Kill a service."""
        self.processes[name].send_signal(signal.SIGKILL)


async def every(seconds: float, what: Fault) -> None:
    """Do something again and again; a database or an API that is away is tried again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await what()
        except (psycopg.Error, psutil.Error, OSError, KeyError):
            continue


async def cause_faults(soak: Soak, server: EmbeddedPostgres) -> None:
    """One fault after the other."""
    postgres = int((server.data / "postmaster.pid").read_text().split()[0])
    first: list[Fault] = [partial(soak.kill, "serve"), partial(soak.kill, "monitor"), partial(_kill, postgres)]
    lasting: Iterator[Fault] = itertools.cycle([soak.lock, soak.set_clock, soak.run_out_of_files])
    while True:
        await asyncio.sleep(90)
        fault = first.pop() if first and soak.passed < SETTLED_SECONDS else next(lasting)
        soak.faults[getattr(fault, "__name__", "kill")] += 1
        await fault()


async def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def run(soak: Soak, server: EmbeddedPostgres, seconds: float) -> None:
    """Everything at once, for so long."""
    arguments = ("--port", str(soak.port))
    async with asyncio.TaskGroup() as tasks:
        background = [
            soak.keep_up("serve", "serve", *arguments),
            soak.keep_up("monitor", "monitor"),
            *(soak.keep_up(f"follower {n}", "events", "--follow") for n in range(3)),
            *(soak.live(host) for host in soak.hosts),
            every(5, soak.look_for_losses),
            every(10, soak.sample),
            every(20, soak.silence),
            every(60, soak.join),
            every(30, soak.administer),
            cause_faults(soak, server),
        ]
        running = [tasks.create_task(each) for each in background]
        await asyncio.sleep(seconds)
        for task in running:
            task.cancel()


def judge(soak: Soak) -> tuple[int, int, dict[str, float]]:
    """Return how many went offline without a silence, how many oftener than they were silent, and the growth of memory
    an hour after the first ten minutes, as a part of it."""
    wanted = "kind = 'status_changed' AND to_status = 'offline'"
    query = f"SELECT worker_id, count(*) FROM worker_events WHERE {wanted} GROUP BY 1"
    with psycopg.connect(soak.url) as connection:
        offline = {str(worker_id): number for worker_id, number in connection.execute(query).fetchall()}
    false = sum(host.worker_id in offline for host in soak.hosts if not host.silences)
    repeated = sum(offline.get(host.worker_id, 0) > host.silences > 0 for host in soak.hosts)
    growth = {}
    for name, samples in soak.samples.items():
        later = [sample for sample in samples if sample[0] > SETTLED_SECONDS]
        if len(later) > 2:
            times, memory, _ = zip(*later, strict=True)
            growth[name] = 3600 * statistics.linear_regression(times, memory).slope / statistics.mean(memory)
    return false, repeated, growth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=3600)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="skyctl-soak-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        server = EmbeddedPostgres(folder / "server")
        with server.running() as url, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            own = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET, "SKYCTL_DATA_DIR": str(folder / "data")}
            environment = os.environ | own | {"SKYCTL_API_URL": f"http://127.0.0.1:{port}"}
            os.environ.update(own)
            asyncio.run(Soak(url, port, environment, "", []).skyctl("db", "init"))
            admin, lines = prepare(url, args.hosts)
            pairs = [line.partition(" ") for line in lines.splitlines()]
            hosts = [Host(number, worker_id, token) for number, (worker_id, _, token) in enumerate(pairs)]
            soak = Soak(url, port, environment, admin, hosts)
            uvloop.run(run(soak, server, args.seconds))
            false, repeated, growth = judge(soak)
    table = Table("what", "seen", title=f"{len(soak.hosts)} hosts, {args.seconds:.0f} s")
    table.add_row("offline without a silence", str(false))
    table.add_row("offline oftener than silent", str(repeated))
    table.add_row("acknowledged and not stored", str(soak.lost))
    table.add_row("silences", str(sum(host.silences for host in soak.hosts)))
    for name, samples in soak.samples.items():
        memory, files = [sample[1] for sample in samples], [sample[2] for sample in samples]
        growing = f"{growth.get(name, 0):+.1%} an hour"
        shown = f"{min(memory):.0f} to {max(memory):.0f} MB, {growing}; {min(files)} to {max(files)} files"
        table.add_row(f"{name}: memory and files", shown)
    table.add_row("answers", ", ".join(f"{key}: {number}" for key, number in sorted(soak.answers.items())))
    table.add_row("faults", ", ".join(f"{key}: {number}" for key, number in sorted(soak.faults.items())))
    Console(width=120).print(table)
    sys.exit(1 if false or repeated or soak.lost or any(each > MOST_GROWTH for each in growth.values()) else 0)


if __name__ == "__main__":
    main()
