"""A stream of the log: what has been written since a number, and then what comes, as server-sent events.

A client that was cut off goes on with the number of the last entry that it got (`Last-Event-ID`), without a gap and
without a repetition.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.types import Send

from skyctl.api.http_protocol import CONNECTION
from skyctl.api.operation import Page
from skyctl.api.responses import NO_STORE, encode
from skyctl.domain.errors import Busy, DatabaseRefused, DatabaseUnavailable, SkyctlError
from skyctl.host.vital import VitalLoop
from skyctl.operations.admin import events
from skyctl.operations.shared.context import Context

MOST_STREAMS, MOST_OF_ONE = 200, 20
MOST_FAILURES = 10  # then the client shall see that it hears nothing, and come again
LOOK_SECONDS = 15.0  # also how long a token that was revoked keeps a silent stream
AFTER_ERROR_SECONDS = 1.0
LISTENING_BOUND_SECONDS = 120.0
MEDIA_TYPE = b"text/event-stream"


Read = Callable[[int], Awaitable[Page]]
"""Gives the entries after a number. Raises SkyctlError."""


class News:
    """Wakes the streams of this process when there is something new; one thread listens for all of them."""

    def __init__(self, context: Context, *, to_alerts: bool) -> None:
        self._context, self._to_alerts = context, to_alerts
        self._waiting: dict[asyncio.Event, str] = {}
        self._thread: VitalLoop | None = None

    def join(self, woken: asyncio.Event, caller: str) -> None:
        """Wake this one of a caller from now on. Raises Busy where there are too many, or too many of his."""
        of_one = sum(other == caller for other in self._waiting.values())
        if of_one >= MOST_OF_ONE or len(self._waiting) >= MOST_STREAMS:
            number = of_one if of_one >= MOST_OF_ONE else MOST_STREAMS
            raise Busy(f"{number} streams are open already", "close one, or ask again and again without a stream")
        self._waiting[woken] = caller
        woken.set()  # for what came before
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = VitalLoop("news", lambda: self._listen(loop), LISTENING_BOUND_SECONDS, only_told=True)
            self._thread.start()

    def leave(self, woken: asyncio.Event) -> None:
        """Wake it no more."""
        self._waiting.pop(woken, None)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> float:
        try:
            with events.listening(self._context, to_alerts=self._to_alerts) as news:
                while self._thread:
                    loop.call_soon_threadsafe(self._wake)
                    with self._thread.resting():
                        is_quiet = not events.await_news(news, LOOK_SECONDS)
                    if is_quiet:  # the database may be a standby by now, of which nobody would hear anything
                        break
        except (DatabaseUnavailable, DatabaseRefused):
            return AFTER_ERROR_SECONDS
        return 0.0

    def _wake(self) -> None:
        for woken in self._waiting:
            woken.set()


def after(request: Request, number: int) -> Request:
    """Return the request as one for what is after a number."""
    query = urlencode({**request.query_params, "since": number}).encode()
    return Request({**request.scope, "query_string": query}, request.receive)


def resumed(request: Request) -> Request:
    """Return the request as one for what is after the entry that the client got last, where it says so."""
    said = request.headers.get("last-event-id")
    query = urlencode({**request.query_params, "since": said}).encode() if said else request.scope["query_string"]
    return Request({**request.scope, "query_string": query}, request.receive)


async def run(request: Request, send: Send, news: News, caller: str, read: Read, first: Page) -> None:
    """Send the first entries and what comes, until the client leaves, its token is good no more, nothing can be read,
    or the server ends. Raises Busy before anything is sent."""
    woken = asyncio.Event()
    news.join(woken, caller)
    connection = request.scope["extensions"][CONNECTION]
    connection["on_end"](woken.set)
    has_left: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
    page, failures = first, 0
    try:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", MEDIA_TYPE), NO_STORE]})
        while not (has_left.done() or connection["ends"]()):
            await _send(send, page)
            if not page.entries:
                await _wait(woken, has_left)
            try:
                page, failures = await read(page.last), 0
            except (DatabaseUnavailable, DatabaseRefused, Busy):
                page, failures = Page((), page.last), failures + 1
                if failures == MOST_FAILURES:
                    break
                await asyncio.sleep(AFTER_ERROR_SECONDS)
                woken.set()
    except SkyctlError:  # the token is good no more: the client learns why when it comes again
        pass
    finally:
        has_left.cancel()
        news.leave(woken)
    await send({"type": "http.response.body", "body": b""})


async def _send(send: Send, page: Page) -> None:
    text = b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n" % (entry.number, entry.kind.encode(), encode(entry.document))
        for entry in page.entries
    )
    nothing = b"id: %d\n: nothing new\n\n" % page.last  # by which it goes on, all the same
    await send({"type": "http.response.body", "body": text or nothing, "more_body": True})


async def _wait(woken: asyncio.Event, has_left: "asyncio.Future[Any]") -> None:
    waiting = asyncio.create_task(woken.wait())
    await asyncio.wait({waiting, has_left}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    woken.clear()
