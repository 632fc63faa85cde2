"""What 600 connections of forged requests do to an administrator's list, /readyz and the heartbeats of others: each
measured quiet and under load, in turn, in one run.

The forgers are another process: registrations by tokens that nobody signed, links that nobody made, heartbeats that
cannot be read, each sent again as soon as it is answered. They, PostgreSQL, `skyctl serve` and what measures share the
machine, over loopback; their number and time are bounded. Exit code 1 where a median under load is over 3 times the
quiet one.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import uvloop
from _load import forever, run
from heartbeats import SECRET, prepare, server
from rich.console import Console
from rich.table import Table

from skyctl.host.postgres import EmbeddedPostgres
from skyctl.rules import tokens

HERE = Path(__file__).parent
MOST_TIMES, WORKERS, LONGEST_SECONDS = 3.0, 100, 60.0


def forged(number: int) -> bytes:
    """One of the forgers' requests."""
    kind = number % 3
    if kind == 0:
        token, _ = tokens.issue_worker_token(secrets.token_hex(32), uuid4(), "nobody", datetime.now(UTC))
        capacity = {"cpuCores": 1, "memoryMb": 1, "diskGb": 1}
        body = json.dumps({"hostname": "h", "ipAddress": "10.0.0.1", "capacity": capacity, "metadata": {}})
        head = f"POST /api/workers/register HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
    elif kind == 1:
        body, head = "", f"GET /install/{secrets.token_urlsafe(32)} HTTP/1.1\r\n"
    else:
        body, head = '{"cpuPercent": ' * 500, f"POST /api/workers/{uuid4()}/heartbeat HTTP/1.1\r\n"
        head += "Authorization: Bearer x\r\n"
    return f"{head}Host: m\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@contextmanager
def forgers(port: int, connections: int, seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """The forgers, all of them connected, for the length of the block and no longer than these seconds."""
    command = [sys.executable, str(HERE / "strangers.py"), "--forge", str(port)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            time.sleep(2)  # for its first requests, which all come at once
            yield process
        finally:
            process.terminate()


def milliseconds(client: httpx.Client, method: str, path: str, **request: Any) -> float:
    """Send a request, and return how long its answer took."""
    began = time.perf_counter()
    response = client.request(method, path, **request)
    assert response.status_code == 200, f"{path}: {response.status_code} {response.text[:200]}"
    return 1000 * (time.perf_counter() - began)


def measure(port: int, admin: dict[str, str], worker: tuple[str, str], times: int) -> dict[str, list[float]]:
    """Ask for each as often; /readyz asks the database once a second, whoever asks it."""
    load = {"cpuPercent": 1, "memoryPercent": 1, "diskPercent": 1, "containerCount": 0}
    beat = {"json": load, "headers": {"Authorization": f"Bearer {worker[1]}"}}
    taken: dict[str, list[float]] = {"administrator's list": [], "/readyz": [], "heartbeat": []}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_SECONDS) as client:
        for _ in range(times):
            taken["administrator's list"].append(milliseconds(client, "GET", "/api/workers", headers=admin))
            taken["heartbeat"].append(milliseconds(client, "POST", f"/api/workers/{worker[0]}/heartbeat", **beat))
        for _ in range(times):
            taken["/readyz"].append(milliseconds(client, "GET", "/readyz"))
    return taken


def compare(url: str, args: argparse.Namespace) -> list[tuple[dict[str, list[float]], dict[str, list[float]]]]:
    """Return what was measured quiet and under load, round by round."""
    workers = prepare(url, WORKERS)
    with psycopg.connect(url) as connection:
        user_id = uuid4()
        connection.execute("INSERT INTO users (id, email, role) VALUES (%s, 'a@example.com', 'admin')", [user_id])
    token = tokens.issue_admin_token(SECRET, user_id, "a@example.com", datetime.now(UTC))
    admin = {"Authorization": f"Bearer {token}"}
    environment = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET}
    command = [sys.executable, "-m", "skyctl", "serve", "--port", "0"]
    rounds = []
    with server(command, environment) as port:
        measure(port, admin, workers[0], args.times)
        for _ in range(args.rounds):
            quiet = measure(port, admin, workers[0], args.times)
            with forgers(port, args.connections, LONGEST_SECONDS):
                rounds.append((quiet, measure(port, admin, workers[0], args.times)))
    return rounds


def report(rounds: list[tuple[dict[str, list[float]], dict[str, list[float]]]], args: argparse.Namespace) -> None:
    table = Table(title=f"{args.connections} connections of forged requests, {args.rounds} rounds")
    for heading in ("request", "quiet, median ms", "under load, median ms", "p95 ms", "ratio", "least", "most"):
        table.add_column(heading, justify="left" if heading == "request" else "right")
    worst = 0.0
    for name in rounds[0][0]:
        each = sorted(statistics.median(loaded[name]) / statistics.median(quiet[name]) for quiet, loaded in rounds)
        ratio = statistics.median(each)
        worst = max(worst, ratio)
        quiet = statistics.median(took for quiet, _ in rounds for took in quiet[name])
        loaded = sorted(took for _, loaded in rounds for took in loaded[name])
        shown = [f"{figure:.1f}" for figure in (quiet, statistics.median(loaded), loaded[len(loaded) * 95 // 100])]
        table.add_row(name, *shown, *(f"{figure:.2f} x" for figure in (ratio, each[0], each[-1])))
    Console().print(table)
    if worst > MOST_TIMES:
        raise SystemExit(f"over the aim: {MOST_TIMES:g} x the quiet median")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=LONGEST_SECONDS, help=argparse.SUPPRESS)
    parser.add_argument("--forge", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.forge:
        uvloop.run(
            run(args.forge, forever([forged(number) for number in range(3000)]), args.connections, args.seconds, 0.0)
        )
        return
    with tempfile.TemporaryDirectory(prefix="skyctl-bench-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "data").running() as url:
            subprocess.run(
                [sys.executable, "-m", "skyctl", "--quiet", "db", "init"],
                env=os.environ | {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            report(compare(url, args), args)


if __name__ == "__main__":
    main()
