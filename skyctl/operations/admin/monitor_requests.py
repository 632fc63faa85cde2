"""What the API is asked for and `serve` may not do: a monitor does it, whether it leads or not, as the command line
would, and `serve` waits for what comes of it."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from skyctl.domain.errors import AnsweredError, Busy, EngineUnavailable, Refused, SkyctlError
from skyctl.domain.monitor_requests import MonitorRequest
from skyctl.operations.shared.context import Context
from skyctl.store import db
from skyctl.store import monitor_requests as store

Perform = Callable[[Context, MonitorRequest], Any]
"""Runs the operation of a request; returns the document that it answers. Raises SkyctlError."""

ASKED = store.ASKED  # where monitors listen
TAKEN_WITHIN_SECONDS = 5.0
ANSWERED_WITHIN_SECONDS = 60.0
LONGEST_OUTCOME = 4_000_000


def ask(context: Context, route: str, text: str) -> Any:
    """Have a monitor run an operation for a caller; return the document that it answers.

    Raises what the operation raises, as AnsweredError; EngineUnavailable where no monitor takes it, and Busy where all
    are at others, so that nothing is done; EngineUnavailable also where none has answered in time: what became of it
    then is in the log of events.
    """
    request = MonitorRequest(uuid4(), route, text)
    with context.db.listening(store.ANSWERED) as news:
        with context.db.transaction() as tx:
            store.ask(tx, request)
        outcome = _await(context, news, request.id, TAKEN_WITHIN_SECONDS)
        if outcome is None:
            with context.db.transaction() as tx:
                nobody_came, are_busy = store.withdraw(tx, request.id), store.are_busy(tx)
            if nobody_came and are_busy:
                raise Busy("the monitors are busy with what others ask", "try again; nothing was done")
            if nobody_came:
                raise EngineUnavailable("no monitor has taken this up", "see that `skyctl monitor` runs")
            outcome = _await(context, news, request.id, ANSWERED_WITHIN_SECONDS - TAKEN_WITHIN_SECONDS)
    if outcome is None:
        raise EngineUnavailable(
            f"the monitor has not answered within {ANSWERED_WITHIN_SECONDS:g} s", "see `skyctl events` for what it did"
        )
    document = json.loads(outcome)
    if trouble := document.get("error"):
        raise AnsweredError.of(trouble)
    return document["data"]


def answer_next(context: Context, perform: Perform) -> MonitorRequest | None:
    """Take a request, do it, and write down what came of it; return it, None where none waits. What an operation raises
    that is no error of ours is raised again, once its caller has been told. Raises DatabaseUnavailable."""
    with context.db.transaction() as tx:
        request = store.take(tx, timedelta(seconds=TAKEN_WITHIN_SECONDS))
    if request is None:
        return None
    try:
        outcome = {"data": perform(context, request)}
    except SkyctlError as error:
        outcome = {"error": error.document}
    except Exception:
        _answer(context, request, {"error": SkyctlError("unexpected error: see the log of skyctl monitor").document})
        raise
    _answer(context, request, outcome)
    return request


def _await(context: Context, news: db.Listener, request_id: UUID, seconds: float) -> str | None:
    """Return what came of a request; None where nothing has by then."""
    deadline = time.monotonic() + seconds
    while True:
        with context.db.transaction() as tx:
            if outcome := store.collect(tx, request_id):
                return outcome
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        db.await_news(news, left)


def _answer(context: Context, request: MonitorRequest, outcome: dict[str, Any]) -> None:
    text = json.dumps(outcome)
    if len(text) > LONGEST_OUTCOME:
        text = json.dumps({"error": Refused(f"the answer is over {LONGEST_OUTCOME} bytes", "ask for less").document})
    with context.db.transaction() as tx:
        store.answer(tx, request.id, text)
