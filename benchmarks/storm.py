"""What a fleet that starts at once does to `skyctl serve`: hosts that were all away register within half a minute, as
when power is back. How many are registered and when, what /readyz and an administrator's list take meanwhile, and the
memory of `serve` before, during and after, beside another build in the same run.

Agents, PostgreSQL, `serve` and what measures share the machine, over loopback; their number and time are bounded.
Exit code 1 unless all hosts are registered within 60 s, /readyz and the list stay below 250 ms, and memory at most 1.5
times that of the same hosts beating quietly.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg
from _agents import address
from _limits import Limit, hold
from rich.console import Console
from rich.table import Table

from skyctl.host.postgres import EmbeddedPostgres
from skyctl.rules import tokens

HERE = Path(__file__).parent
SECRET = "benchmark-secret-that-is-long-enough-for-hs256"
SPREAD, LIMIT, AFTER = 30.0, 120.0, 45.0
WITHIN_SECONDS, MOST_MS, MOST_MEMORY = 60.0, 250.0, 1.5


def prepare(url: str, hosts: int) -> tuple[str, str]:
    """Hosts that registered once and have been away for long; an administrator's token, and the agents' lines."""
    now, admin = datetime.now(UTC), uuid4()
    pairs = [
        (worker_id, tokens.issue_worker_token(SECRET, worker_id, "bench", now)[0])
        for worker_id in map(_id, range(hosts))
    ]
    columns = "id, name, hostname, ip_address, auth_token_hash, status, machine_id, boot_id, instance_id"
    columns += ", bound_at, last_heartbeat_at"
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO users (id, email, role) VALUES (%s, 'a@example.com', 'admin')", [admin])
        with connection.cursor().copy(f"COPY container_workers ({columns}) FROM STDIN") as copy:
            for number, (worker_id, token) in enumerate(pairs):
                copy.write_row(
                    (
                        worker_id,
                        f"w{number}",
                        f"host-{number}",
                        address(number),
                        hashlib.sha256(token.encode()).hexdigest(),
                        "offline",
                        f"machine-{number}",
                        f"boot-1-{number}",
                        f"process-1-{number}",
                        "2026-01-01",
                        "2026-01-01",
                    )
                )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE container_workers")
    return tokens.issue_admin_token(SECRET, admin, "a@example.com", now), "\n".join(f"{i} {t}" for i, t in pairs)


def _id(number: int) -> UUID:
    return UUID(int=(1 << 120) + number)


class Probe(threading.Thread):
    """Asks for a path four times a second, and keeps how long each answer took in milliseconds."""

    def __init__(self, url: str, path: str, headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30)
        self._path, self._end = path, threading.Event()
        self.took: list[float] = []

    def run(self) -> None:
        while not self._end.wait(0.25):
            began = time.perf_counter()
            try:
                good = self._client.get(self._path).status_code == 200
            except httpx.HTTPError:
                good = False
            self.took.append(1000 * (time.perf_counter() - began) if good else float("inf"))

    def end(self) -> list[float]:
        """End, and return what the answers took."""
        self._end.set()
        self.join()
        return sorted(self.took)


class Memory(threading.Thread):
    """The resident memory of processes and of those they started, in MB, read four times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._end = psutil.Process(pid), threading.Event()
        self.peak = self.now()

    def now(self) -> float:
        family = [self._process, *self._process.children(recursive=True)]
        return sum(process.memory_info().rss for process in family) / 2**20

    def run(self) -> None:
        while not self._end.wait(0.25):
            self.peak = max(self.peak, self.now())

    def end(self) -> float:
        self._end.set()
        self.join()
        return self.peak


@contextmanager
def serving(source: Path, url: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`skyctl serve` of a source tree, and its address."""
    environment = {
        "SKYCTL_DATABASE_URL": url,
        "SKYCTL_JWT_SECRET": SECRET,
        "SKYCTL_DATA_DIR": str(folder),
        "PYTHONPATH": str(source),
    }
    subprocess.run(
        [sys.executable, "-m", "skyctl", "db", "init"],
        env=os.environ | environment,
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with (folder / "log").open("w+") as log:
        command = [sys.executable, "-m", "skyctl", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=os.environ | environment, stderr=log, text=True, cwd=source)
        try:
            while not (line := (folder / "log").read_text().partition("\n")[0]):
                time.sleep(0.05)
            yield process, line.split("listening on ")[1].strip()
        finally:
            process.terminate()
            process.wait()


@contextmanager
def fleet(port: str, agents: str) -> Iterator[dict[str, Any]]:
    """Let the agents start; give what became of them once all have registered, or the time is over, while they beat
    on."""
    command = [sys.executable, str(HERE / "_agents.py"), port, str(SPREAD), str(LIMIT), str(AFTER + 60)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(agents)
        process.stdin.close()
        found: dict[str, Any] = json.loads(process.stdout.readline())
        yield found
        process.terminate()


def measure(source: Path, hosts: int) -> dict[str, Any]:
    """One storm on one build."""
    with tempfile.TemporaryDirectory(prefix="skyctl-storm-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        with EmbeddedPostgres(folder / "server").running() as url, serving(source, url, data) as (process, api):
            admin, agents = prepare(url, hosts)
            headers = {"Authorization": f"Bearer {admin}"}
            httpx.get(f"{api}/api/workers", headers=headers, timeout=30)
            memory = Memory(process.pid)
            before = memory.now()
            probes = [Probe(api, "/readyz", {}), Probe(api, "/api/workers", headers)]
            for each in (memory, *probes):
                each.start()
            with fleet(api.rsplit(":", 1)[1], agents) as found:
                storm = [probe.end() for probe in probes]
                peak = memory.end()
                time.sleep(AFTER)
                beating = memory.now()
            began = time.monotonic()
            process.terminate()
            process.wait()
            ended = time.monotonic() - began
            log = (data / "log").stat().st_size
    return {
        "registered": len(found["registered"]),
        "last after": (found["registered"] or [0])[-1],
        "statuses": found["statuses"],
        "readyz": storm[0],
        "list": storm[1],
        "memory": (before, peak, beating),
        "end": ended,
        "log": log,
    }


def report(results: dict[str, dict[str, Any]], hosts: int) -> None:
    """Show the builds side by side."""
    table = Table("", *results, title=f"{hosts} hosts start within {SPREAD:.0f} s")
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "registered": lambda r: f"{r['registered']}, the last after {r['last after']:.0f} s",
        "answers": lambda r: ", ".join(f"{k}: {v}" for k, v in sorted(r["statuses"].items())),
        "/readyz, median and longest": lambda r: _ms(r["readyz"]),
        "list of workers, median and longest": lambda r: _ms(r["list"]),
        "memory before, at most, later beating": lambda r: " / ".join(f"{mb:.0f} MB" for mb in r["memory"]),
        "SIGTERM to its end, size of its log": lambda r: f"{r['end']:.1f} s, {r['log']} bytes",
    }
    for name, show in rows.items():
        table.add_row(name, *(show(result) for result in results.values()))
    Console(width=120).print(table)


def _ms(took: list[float]) -> str:
    return f"{took[len(took) // 2]:.0f} ms, {took[-1]:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--beside", help="a source tree of another build, measured first")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    builds = {"beside": Path(args.beside).resolve()} if args.beside else {}
    results = {name: measure(source, args.hosts) for name, source in (builds | {"this build": HERE.parent}).items()}
    report(results, args.hosts)
    ours = results["this build"]
    hold(
        Limit("hosts registered", ours["registered"], args.hosts, "", least=True),
        Limit("the last of them", ours["last after"], WITHIN_SECONDS, "s"),
        Limit("/readyz, the slowest", ours["readyz"][-1], MOST_MS, "ms"),
        Limit("list of workers, the slowest", ours["list"][-1], MOST_MS, "ms"),
        Limit("memory, against beating quietly", ours["memory"][1] / ours["memory"][2], MOST_MEMORY, "x"),
    )


if __name__ == "__main__":
    main()
