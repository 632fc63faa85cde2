"""The heartbeat path: read, check, gather with whatever else is waiting, one statement for the batch, commit, answer.

Everything happens on the event loop but the batch itself, which one thread gives to one ordinary operation. While a
batch is on its way to the database the next one gathers, so batches grow with the load and no request costs a row of
its own, a thread, or a connection.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from prometheus_client import Counter, Histogram
from starlette.types import Receive, Scope, Send

from skyctl import wire
from skyctl.api.answers import JSON, bearer_token, encode, read_body, send_error
from skyctl.errors import DatabaseUnavailable, SkyctlError, Unauthorized, ValidationError, WorkerNotFound
from skyctl.model import Beat
from skyctl.operations import heartbeats
from skyctl.operations.heartbeats import fingerprint
from skyctl.operations.world import World

MAX_BATCH = 2000
PREFIX, SUFFIX = "/api/workers/", "/heartbeat"

log = logging.getLogger(__name__)

HEARTBEATS = Counter("skyctl_heartbeats", "Heartbeats answered, by outcome", ["outcome"])
BATCH_SIZE = Histogram(
    "skyctl_heartbeat_batch_size", "Heartbeats in one statement", buckets=(1, 4, 16, 64, 256, 1024, 2048)
)
BATCH_SECONDS = Histogram("skyctl_heartbeat_batch_seconds", "Time of one batch in the database, with its commit")
ACCEPTED = HEARTBEATS.labels("accepted")
REFUSED = HEARTBEATS.labels("refused")
INVALID = HEARTBEATS.labels("invalid")
UNAVAILABLE = HEARTBEATS.labels("unavailable")


def is_heartbeat(scope: Scope) -> bool:
    """Whether a request is a heartbeat, seen from its method and path alone."""
    path: str = scope.get("path", "")
    return scope["type"] == "http" and path.endswith(SUFFIX) and path.startswith(PREFIX) and scope["method"] == "POST"


class Heartbeats:
    """The ASGI application of POST /api/workers/{id}/heartbeat."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[tuple[Beat, asyncio.Future[SkyctlError | None]]] = []
        self._busy = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="heartbeats")
        self._tasks: set[asyncio.Task[None]] = set()
        body = encode(
            {
                "success": True,
                "message": "Heartbeat received",
                "nextHeartbeatSeconds": world.heartbeat_interval.total_seconds(),
            }
        )
        self._start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [JSON, (b"content-length", str(len(body)).encode())],
        }
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200 once the beat is committed, else with the reason."""
        try:
            token = bearer_token(scope["headers"])
            beat = _beat(scope["path"], token, await read_body(scope, receive))
            outcome = await self._record(beat)
            if isinstance(outcome, Unauthorized):
                outcome = await self._why_refused(beat, token)
        except SkyctlError as error:
            outcome = error
        if outcome is None:
            await send(self._start)
            await send(self._body)
        else:
            _count(outcome)
            await send_error(send, outcome)

    def _record(self, beat: Beat) -> asyncio.Future[SkyctlError | None]:
        outcome: asyncio.Future[SkyctlError | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((beat, outcome))
        if not self._busy:
            self._busy = True
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return outcome

    async def _drain(self) -> None:
        """Write batch after batch until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                writing = loop.run_in_executor(self._writer, self._write, [beat for beat, _ in batch])
                await asyncio.wait([writing])
                _resolve(writing, [outcome for _, outcome in batch])
        finally:
            self._busy = False

    def _write(self, beats: list[Beat]) -> list[SkyctlError | None]:
        started = time.perf_counter()
        try:
            outcomes = heartbeats.record(self._world, beats)
        except DatabaseUnavailable as error:
            log.warning("action=heartbeats_refused count=%d reason=%s", len(beats), error.message)
            return [error] * len(beats)
        BATCH_SECONDS.observe(time.perf_counter() - started)
        BATCH_SIZE.observe(len(beats))
        ACCEPTED.inc(outcomes.count(None))
        return outcomes

    async def _why_refused(self, beat: Beat, token: bytes) -> SkyctlError:
        loop = asyncio.get_running_loop()
        why = heartbeats.why_refused
        return await loop.run_in_executor(None, why, self._world, UUID(beat.worker_id), token.decode("latin-1"))


def _beat(path: str, token: bytes, body: bytes) -> Beat:
    worker_id = path[len(PREFIX) : -len(SUFFIX)]
    if not wire.CANONICAL_UUID.fullmatch(worker_id):
        raise WorkerNotFound("the path holds no worker's id", "POST /api/workers/{id}/heartbeat")
    return Beat(worker_id, fingerprint(token), wire.heartbeat(wire.parse(body)))


def _resolve(
    writing: asyncio.Future[list[SkyctlError | None]], waiting: list[asyncio.Future[SkyctlError | None]]
) -> None:
    """Hand each beat its outcome, or all of them the error that the writing ended with."""
    error = writing.exception()
    for index, future in enumerate(waiting):
        if future.done():  # whoever asked has gone
            continue
        if error:
            future.set_exception(error)
        else:
            future.set_result(writing.result()[index])


def _count(outcome: SkyctlError) -> None:
    if isinstance(outcome, DatabaseUnavailable):
        UNAVAILABLE.inc()
    elif isinstance(outcome, ValidationError):
        INVALID.inc()
    else:
        REFUSED.inc()
