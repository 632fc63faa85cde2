"""A load generator: keep-alive HTTP connections that each send the next prepared request as soon as they are answered,
or at a steady rate over all of them."""

import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, repeat
from math import gcd
from pathlib import Path

import uvloop

HEAD = (
    "POST /api/workers/%s/heartbeat HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer token-%08d-%s\r\n"
    "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
BODY = '{"cpuPercent": %.1f, "memoryPercent": %.1f, "diskPercent": 38.5, "containerCount": %d}'


class Connection(asyncio.Protocol):
    """One connection; answers are counted by status, their latencies kept."""

    def __init__(
        self,
        requests: Iterator[bytes],
        times: Iterator[float],
        stop_at: float,
        statuses: Counter[str],
        latencies: list[float],
    ) -> None:
        self._requests, self._times, self._stop_at = requests, times, stop_at
        self._statuses, self._latencies = statuses, latencies
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""
        self._send_in_time()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        self._buffer = b""
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._statuses[head[9:12].decode()] += 1
        if time.perf_counter() >= self._stop_at:
            self._transport.close()
        else:
            self._send_in_time()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(exc)

    def _send_in_time(self) -> None:
        left = next(self._times) - time.perf_counter()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))  # type: ignore[attr-defined]


def _content_length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    return int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


def forever(requests: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


async def run(port: int, source: Iterator[bytes], connections: int, seconds: float, rate: float) -> dict[str, object]:
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    started = time.perf_counter()
    times = (started + number / rate for number in count()) if rate else repeat(0.0)
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda: Connection(source, times, started + seconds, statuses, latencies), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    elapsed = time.perf_counter() - started
    latencies.sort()
    at = {f"p{share}": 1000 * latencies[len(latencies) * share // 100] for share in (50, 99)}
    return {"rate": len(latencies) / elapsed, "number": len(latencies), "statuses": dict(statuses), **at}


def heartbeat(worker_id: str, token: str, number: int) -> bytes:
    load = {"cpuPercent": 45.2, "memoryPercent": 62.8, "diskPercent": 38.5, "containerCount": number % 100}
    body = json.dumps(load)
    return (
        f"POST /api/workers/{worker_id}/heartbeat HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def all_of(workers: int) -> Iterator[bytes]:
    """Heartbeats of so many workers, as `heartbeats.prepare` makes them, in turn, but of no neighbours."""
    step, token = workers * 61 // 100 | 1, "x" * 220
    while gcd(step, workers) != 1:
        step += 2
    for each in count():
        number = each * step % workers
        digest = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()
        worker_id = f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"
        body = BODY % (each % 799 / 10, each % 977 / 13, each % 100)
        yield (HEAD % (worker_id, number, token, len(body)) + body).encode()


def main() -> None:
    port, who, connections, seconds, *rate = sys.argv[1:]
    if who.isdigit():
        requests = all_of(int(who))
    else:
        pairs = json.loads(Path(who).read_text())
        requests = forever([heartbeat(worker_id, token, number) for number, (worker_id, token) in enumerate(pairs)])
    result = uvloop.run(run(int(port), requests, int(connections), float(seconds), float(rate[0]) if rate else 0.0))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
