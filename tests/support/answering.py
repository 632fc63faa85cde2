"""A monitor that does what callers of the API ask of it, with the engine of a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from skyctl.api.administration import table
from skyctl.operations.admin import monitor_requests
from skyctl.operations.shared.context import Context
from skyctl.store import db

LOOK_SECONDS = 0.05


@contextmanager
def answering(context: Context, perform: monitor_requests.Perform = table.perform) -> Iterator[None]:
    """Answer during the block."""
    over = threading.Event()

    def answer() -> None:
        with context.db.listening(monitor_requests.ASKED) as news:
            while not over.is_set():
                while monitor_requests.answer_next(context, perform):
                    pass
                db.await_news(news, LOOK_SECONDS)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
