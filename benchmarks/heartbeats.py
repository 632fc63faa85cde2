"""Heartbeats a second that are committed before they are answered, against two servers in the same run:

ceiling   the same connections and the same path, which answer nothing and ask no database
one each  one UPDATE and one commit a request, over a pool of 8 connections

PostgreSQL, server and load generator share the machine. The three are measured in turn, several times; a ratio is the
median of those of the rounds, since the machine's own speed drifts. Exit code 1 unless at least 0.5 of the ceiling and
4 times `one each` are reached.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from rich.console import Console
from rich.table import Table

from skyctl.api.limits import Connections
from skyctl.host.postgres import EmbeddedPostgres

HERE = Path(__file__).parent
OF_CEILING, TIMES_EACH = 0.5, 4.0
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


def prepare(url: str, workers: int) -> list[tuple[str, str]]:
    """Workers in the database, and their credentials."""
    pairs = [(str(uuid4()), f"token-{number:08d}-{'x' * 220}") for number in range(workers)]
    with (
        psycopg.connect(url) as connection,
        connection.cursor().copy(
            "COPY container_workers (id, name, hostname, ip_address, auth_token_hash, status) FROM STDIN"
        ) as copy,
    ):
        for number, (worker_id, token) in enumerate(pairs):
            hashed = hashlib.sha256(token.encode()).hexdigest()
            copy.write_row((UUID(worker_id), f"w{number}", f"w{number}", "10.0.0.1", hashed, "active"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE container_workers")
    return pairs


@contextmanager
def server(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """A server process and its port, which it says in its first line on stderr."""
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True, cwd=HERE)
    assert process.stderr
    try:
        yield int(process.stderr.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def measure(port: int, credentials: Path, connections: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "_load.py"), str(port), str(credentials), str(connections), str(seconds)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if set(result["statuses"]) != {"200"}:
        raise SystemExit(f"not every answer was 200: {result['statuses']}")
    return result


def compare(url: str, credentials: Path, args: argparse.Namespace) -> list[dict[str, dict[str, Any]]]:
    """Each server's result, round by round."""
    mine = [sys.executable, str(HERE / "heartbeats.py"), "--serve"]
    commands = {
        "ceiling": [*mine, "ceiling"],
        "one each": [*mine, "one_update_each"],
        "skyctl serve": [sys.executable, "-m", "skyctl", "serve", "--port", "0"],
    }
    environment = {"SKYCTL_DATABASE_URL": url, "SKYCTL_JWT_SECRET": SECRET}
    rounds = []
    for _ in range(args.rounds):
        results = {}
        for name, command in commands.items():
            with server(command, environment) as port:
                results[name] = measure(port, credentials, args.connections, args.seconds)
        rounds.append(results)
    return rounds


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
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
            credentials = Path(folder) / "credentials.json"
            credentials.write_text(json.dumps(prepare(url, args.workers)))
            report(compare(url, credentials, args), args)


def report(rounds: list[dict[str, dict[str, Any]]], args: argparse.Namespace) -> None:
    table = Table(
        title=f"{args.workers} workers, {args.connections} connections, "
        f"median of {args.rounds} rounds of {args.seconds:g} s"
    )
    for heading in ("server", "heartbeats/s", "p50 ms", "p99 ms", "ratio", "least", "most"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    ratios: dict[str, float] = {}
    for name in rounds[0]:
        rate, p50, p99 = (
            statistics.median(results[name][figure] for results in rounds) for figure in ("rate", "p50", "p99")
        )
        each = sorted(results["skyctl serve"]["rate"] / results[name]["rate"] for results in rounds)
        ratios[name] = statistics.median(each)
        shown = ["1"] if name == "skyctl serve" else [f"{ratio:.2f} x" for ratio in (ratios[name], each[0], each[-1])]
        table.add_row(name, f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}", *shown)
    Console().print(table)
    if ratios["ceiling"] < OF_CEILING or ratios["one each"] < TIMES_EACH:
        raise SystemExit(f"below the aim: {OF_CEILING} of the ceiling and {TIMES_EACH} x one each")


if __name__ == "__main__":
    main()
