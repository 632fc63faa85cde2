"""The heartbeat path: read, check, gather with whatever else is waiting, one statement for the batch, commit, answer.

Everything happens on the event loop, the write of a batch included: a thread for it would wait for the loop to let go
of the interpreter at every step. While a batch is on its way to the database the next one gathers, so batches grow with
the load and no request costs a statement of its own, a thread, a task or a connection.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from prometheus_client import Counter, Histogram

from skyctl.api.gates import REPLIES_AT_ONCE, REPLIES_WAITING, Gates
from skyctl.api.http_protocol import HeartbeatRequest, compose
from skyctl.api.responses import SHORT, bearer_token
from skyctl.api.turns import CallerLeft, Gathered
from skyctl.documents import http
from skyctl.documents.heartbeats import parse_heartbeat
from skyctl.domain.cluster import Heartbeat
from skyctl.domain.errors import Busy, DatabaseUnavailable, SkyctlError, Unauthorized, ValidationError
from skyctl.domain.shortages import shortage
from skyctl.domain.tokens import REPLY_PENDING, Outcome
from skyctl.host.condition import Condition, unexpected
from skyctl.operations.agents import heartbeats, reply
from skyctl.operations.shared.authentication import TO_GET_ONE
from skyctl.operations.shared.context import Context

MAX_BATCH = 2000
LONG_BYTES = 1024  # see ADR 0098
LONG_AT_ONCE = 100
UNEXPECTED = SkyctlError("unexpected error", "see the log of skyctl serve")

log = logging.getLogger(__name__)

REPLYING = Condition(log, "reply_failed", "replies_sent")

HEARTBEATS = Counter("skyctl_heartbeats", "Heartbeats answered, by outcome", ["outcome"])
BATCH_SIZE = Histogram(
    "skyctl_heartbeat_batch_size", "Heartbeats in one statement", buckets=(1, 4, 16, 64, 256, 1024, 2048)
)
BATCH_SECONDS = Histogram("skyctl_heartbeat_batch_seconds", "Time of one batch in the database, with its commit")
ACCEPTED = HEARTBEATS.labels("accepted")
REFUSED = HEARTBEATS.labels("refused")
INVALID = HEARTBEATS.labels("invalid")
UNAVAILABLE = HEARTBEATS.labels("unavailable")

T = TypeVar("T")
Waiting = tuple[Heartbeat, HeartbeatRequest]
Unread = tuple[heartbeats.Key, HeartbeatRequest]


class HeartbeatBatches:
    """All heartbeats of a process, from the request that a connection hands over to its answer."""

    def __init__(self, context: Context, gates: Gates) -> None:
        self._context, self._gates = context, gates
        self.connections = gates.connections
        self._waiting: list[Waiting] = []
        self._unread: list[Unread] = []
        self._busy = False
        self._refused: DatabaseUnavailable | None = None
        self._writing = Condition(log, "heartbeats_refused", "heartbeats_accepted")
        self._explaining = Condition(log, "explanation_failed", "refusals_explained")
        self._replies = Gathered(partial(answers_with_replies, context), REPLIES_WAITING, REPLIES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        document = accepted(context)
        self._accepted = {alive: compose(200, document, keep_alive=alive) for alive in (True, False)}

    def receive(self, request: HeartbeatRequest) -> None:
        """Add a heartbeat to the next batch, or refuse it for what can be seen without the database; a long one is not
        read before its token is known."""
        try:
            fingerprint = heartbeats.fingerprint(bearer_token(request.headers, TO_GET_ONE["worker"]))
        except SkyctlError as error:
            self._refuse_stranger(request, error)
            return
        key = (request.worker_id, fingerprint)
        if len(request.body) > LONG_BYTES:
            self._unread.append((key, request))
        else:
            self._read(key, request)
        if not self._busy and (self._waiting or self._unread):
            self._busy = True
            self._spawn(self._drain())

    def _read(self, key: heartbeats.Key, request: HeartbeatRequest) -> None:
        try:
            self._waiting.append((parse_heartbeat(http.parse(request.body), *key), request))
        except SkyctlError as error:
            self._refuse_stranger(request, error)

    async def probe(self) -> None:
        """Return once heartbeats can be written: it waits behind those that wait, on the same connection and for the
        same locks. Raises DatabaseUnavailable, also where some could not be written since the last probe."""
        await heartbeats.probe(self._context)
        refused, self._refused = self._refused, None
        if refused:
            raise refused

    async def _drain(self) -> None:
        """Write batch after batch until no heartbeat waits."""
        try:
            while self._waiting or self._unread:
                long, self._unread = self._unread[:LONG_AT_ONCE], self._unread[LONG_AT_ONCE:]
                if long := [waiting for waiting in long if not waiting[1].disconnected]:
                    await self._read_long(long)
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                batch = [waiting for waiting in batch if not waiting[1].disconnected]
                if batch:
                    self._answer(batch, await self._write([heartbeat for heartbeat, _ in batch]))
        finally:
            self._busy = False

    async def _read_long(self, long: list[Unread]) -> None:
        """Read those of the long heartbeats whose tokens are known."""
        known = await self._asked(len(long), heartbeats.known(self._context, {key for key, _ in long}))
        for key, request in long:
            if isinstance(known, SkyctlError):
                _refuse(request, known)
            elif key in known:
                self._read(key, request)
            else:
                self._spawn(self._explain(request))

    async def _write(self, batch: list[Heartbeat]) -> list[Outcome]:
        started = time.perf_counter()
        outcomes = await self._asked(len(batch), heartbeats.record(self._context, batch))
        if isinstance(outcomes, SkyctlError):
            return [outcomes] * len(batch)
        self._writing.works()
        BATCH_SECONDS.observe(time.perf_counter() - started)
        BATCH_SIZE.observe(len(batch))
        ACCEPTED.inc(outcomes.count(None) + outcomes.count(REPLY_PENDING))
        return outcomes

    async def _asked(self, number: int, question: Coroutine[Any, Any, T]) -> T | SkyctlError:
        """Return what the database answers about so many heartbeats, or why they are refused."""
        try:
            return await question
        except DatabaseUnavailable as error:
            self._refused = error
            self._writing.failed(error.message, number)
            return error
        except Exception as error:  # noqa: BLE001 - it is logged
            self._writing.failed(unexpected(error), number, error=error)
            return UNEXPECTED

    def _answer(self, batch: list[Waiting], outcomes: list[Outcome]) -> None:
        for (heartbeat, request), outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                request.accept(self._accepted[request.keep_alive])
            elif outcome is REPLY_PENDING:
                self._spawn(self._send_reply(heartbeat, request))
            elif isinstance(outcome, Unauthorized):
                self._spawn(self._explain(request))
            else:
                _refuse(request, outcome)

    async def _send_reply(self, heartbeat: Heartbeat, request: HeartbeatRequest) -> None:
        """Answer a heartbeat that is committed, with what else waits for its worker, unless too many others wait."""

        async def has_left() -> bool:
            return request.disconnected

        try:
            document = await self._replies.run(heartbeat.worker_id, heartbeat, has_left)
        except (Busy, CallerLeft, RuntimeError, MemoryError, OSError):  # the last three: there is no thread to be had
            document = accepted(self._context)
        request.accept(compose(200, document, keep_alive=request.keep_alive))

    async def _explain(self, request: HeartbeatRequest) -> None:
        """Find out whether a heartbeat that was not stored is a 401, a 403 or a 404, and answer so; the database is
        asked only about tokens that we signed."""
        token = bearer_token(request.headers, TO_GET_ONE["worker"]).decode("latin-1")
        try:
            holder = await self._gates.holder(self._context, token, "worker")
        except SkyctlError as error:
            self._refuse_stranger(request, error)
            return
        except Exception as error:  # noqa: BLE001 - it is logged
            self._cannot_explain(request, error)
            return
        why = partial(heartbeats.why_refused, self._context, UUID(request.worker_id), token)
        try:
            _refuse(request, await self._gates.workers.run(holder, why))
            self._explaining.works()
        except SkyctlError as error:
            _refuse(request, error)
        except Exception as error:  # noqa: BLE001 - it is logged
            self._cannot_explain(request, error)

    def _refuse_stranger(self, request: HeartbeatRequest, error: SkyctlError) -> None:
        self._gates.answers_to_strangers.call(request.caller, partial(_refuse, request, error))

    def _cannot_explain(self, request: HeartbeatRequest, error: Exception) -> None:
        self._explaining.failed(unexpected(error), error=error)
        _refuse(request, SHORT if shortage(error) else UNEXPECTED)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)  # the event loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)


def accepted(context: Context) -> dict[str, Any]:
    """Return the answer to a heartbeat that is committed."""
    interval = context.health.heartbeat_interval.total_seconds()
    return {"success": True, "message": "Heartbeat received", "nextHeartbeatSeconds": interval}


def answers_with_replies(context: Context, stored: Sequence[Heartbeat]) -> list[dict[str, Any]]:
    """Return the answers to heartbeats that are committed, with what else waits for their workers. Where that cannot be
    read, it waits for the next heartbeats."""
    try:
        replies = reply.take(context, stored)
    except SkyctlError as error:
        REPLYING.failed(error.message)
    except Exception as error:  # noqa: BLE001 - because of one of them; it is logged
        if len(stored) > 1:
            return [answer for each in stored for answer in answers_with_replies(context, [each])]
        REPLYING.failed(unexpected(error), error=error)
    else:
        REPLYING.works()
        return [accepted(context) | each.document() for each in replies]
    return [accepted(context)] * len(stored)


def _refuse(request: HeartbeatRequest, error: SkyctlError) -> None:
    if isinstance(error, DatabaseUnavailable):
        UNAVAILABLE.inc()
    elif isinstance(error, ValidationError):
        INVALID.inc()
    else:
        REFUSED.inc()
    request.refuse(error)
