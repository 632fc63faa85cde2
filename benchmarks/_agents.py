"""Simulated agents: each registers, then beats, on a connection of its own, and tries again as the real one does.

Their tokens come as lines on stdin (worker id, token). Once all have registered, what became of them goes to stdout as
JSON; then they go on.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import uvloop

from skyagent.backoff import jittered, retry_delay

TIMEOUT_SECONDS, INTERVAL_SECONDS = 10.0, 30.0


@dataclass
class Fleet:
    """Where the agents report, and what they have seen."""

    port: int
    began: float = field(default_factory=time.monotonic)
    statuses: Counter[str] = field(default_factory=Counter)
    registered: list[float] = field(default_factory=list)

    async def run(self, workers: list[list[str]], spread: float, limit: float, after: float) -> None:
        """Start all within `spread` seconds; end `after` seconds after the last has registered, or at `limit`, when it
        is told."""
        agents = [
            asyncio.create_task(self._live(number, worker_id, token, random.uniform(0, spread)))
            for number, (worker_id, token) in enumerate(workers)
        ]
        while len(self.registered) < len(workers) and time.monotonic() - self.began < limit:
            await asyncio.sleep(0.1)
        said = {"statuses": dict(self.statuses), "registered": sorted(self.registered)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(after)
        for agent in agents:
            agent.cancel()
        await asyncio.gather(*agents, return_exceptions=True)

    async def _live(self, number: int, worker_id: str, token: str, start: float) -> None:
        await asyncio.sleep(start)
        failures = 0
        connection = Connection(self.port)
        is_registered = False
        try:
            while True:
                what = beating(worker_id, token, 5) if is_registered else registering(number, token)
                status, wait = await connection.ask(what)
                self.statuses[f"{'beat' if is_registered else 'register'} {status}"] += 1
                if status in ("200", "201"):
                    failures = 0
                    token = json.loads(connection.body).get("newToken", token)
                    if not is_registered:
                        is_registered = True
                        self.registered.append(time.monotonic() - self.began)
                        continue
                    delay = jittered(INTERVAL_SECONDS, random.random())
                else:
                    failures += 1
                    delay = retry_delay(failures, random.random(), wait)
                await asyncio.sleep(delay)
        finally:
            connection.close()


class Connection:
    """A connection that is opened when it is needed, and kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.body = b""

    async def ask(self, what: bytes) -> tuple[str, float]:
        """Send a request; return its status, or why there is none, and what Retry-After says."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._ask(what)
        except TimeoutError:
            self.close()
            return "timeout", 0.0
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return "broken", 0.0

    async def _ask(self, what: bytes) -> tuple[str, float]:
        self._streams = self._streams or await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 14)
        reader, writer = self._streams
        writer.write(what)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.body = await reader.readexactly(int(fields["content-length"]))
        return head[9:12], float(fields.get("retry-after", 0))

    def close(self) -> None:
        """End the connection."""
        if self._streams:
            self._streams[1].transport.abort()
        self._streams = None


def registering(number: int, token: str) -> bytes:
    """The registration of a host that was booted again."""
    metadata = {"machineId": f"machine-{number}", "bootId": f"boot-2-{number}", "instanceId": f"process-2-{number}"}
    said = {
        "hostname": f"host-{number}",
        "ipAddress": address(number),
        "capacity": {"cpuCores": 8, "memoryMb": 16384, "diskGb": 500},
        "metadata": metadata | {"agentVersion": "0.2.0", "dockerVersion": "28.0", "takesTokens": True},
    }
    return request("/api/workers/register", token, said)


def beating(worker_id: str, token: str, containers: int) -> bytes:
    """A heartbeat with so many containers."""
    load = {"cpuPercent": 10.0, "memoryPercent": 20.0, "diskPercent": 30.0, "containerCount": containers}
    return request(f"/api/workers/{worker_id}/heartbeat", token, load)


def address(number: int) -> str:
    """The address of a host."""
    return f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def request(path: str, token: str, document: object) -> bytes:
    """A POST request with a JSON document."""
    body = json.dumps(document)
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def main(port: int, spread: float, limit: float, after: float) -> None:
    workers = [line.split() for line in sys.stdin]
    uvloop.run(Fleet(port).run(workers, spread, limit, after))


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(float, sys.argv[2:5]))
