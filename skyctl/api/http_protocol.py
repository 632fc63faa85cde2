"""One HTTP connection: uvicorn's, with a short way for heartbeats.

uvicorn makes a task, a scope and several messages of every request. A heartbeat needs none of them: its connection
hands it over as soon as it is complete, and writes the answer in one piece. Whatever is not a plain heartbeat (another
route, a query, an Expect, a request that waits behind another) is uvicorn's, and then an ordinary handler's.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from skyctl.api.limits import Connections, caller_of, caller_of_user
from skyctl.api.responses import (
    JSON,
    MAX_BODY_BYTES,
    NO_STORE,
    Header,
    encode,
    error_answer,
    error_document,
    too_large,
)
from skyctl.domain.errors import SkyctlError
from skyctl.host import local_users, tcp

REQUEST_SECONDS = 20.0
MAX_HEAD_BYTES = 32 * 1024
MAX_FIELDS = 100
MAX_FRAMING_BYTES = MAX_HEAD_BYTES + MAX_BODY_BYTES  # what is no body: the lines of chunks, and the fields after them
MOST_WAITING = 16  # on one connection, each with all that belongs to a request
MAX_HEARTBEAT_BYTES = 16 * 1024  # a heartbeat has some hundred; what is read here, everybody waits for
CONNECTION = "skyctl.connection"
"""The extension of a scope: `prove`, called with whose it is once what a token was for was done; `user`, the number of
the user at the other end of the socket of this machine; `on_end` and `ends`, by which a stream learns of the end."""
HEARTBEAT = re.compile(rb"(?:/+api)+/+workers/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/heartbeat")


class HeartbeatReceiver(Protocol):
    """The receiver of heartbeats, which answers them, and counts the connections."""

    connections: Connections

    def receive(self, request: "HeartbeatRequest") -> None:
        """Answer the request, now or later."""


class _Answers:
    """A connection as answers are written to it: once it is closed they are dropped, where uvloop would raise."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.close, self.is_closing = transport.close, transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class HeartbeatConnection(HttpToolsProtocol):
    """A connection to an application whose `heartbeats` is a HeartbeatReceiver. A request that does not come in time,
    or of which too much is no body, ends it, and so does a client that
    reads none of its answers for as long."""

    is_proven = False
    user: int | None = None
    _refusal = ""
    _reading = False
    _in_head = False
    _head_bytes = 0
    _begins = False
    _framing_bytes = 0
    _ends = False
    _given_up: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request for a limited time."""
        super().connection_made(transport)
        self._on_end: list[Callable[[], None]] = []
        self._given_up = self.loop.call_later(REQUEST_SECONDS, self._give_up)
        self._receiver.connections.opened(self)
        accepted = transport.get_extra_info("socket")
        if accepted.family == socket.AF_UNIX:
            self.user = local_users.at_other_end(accepted.fileno())
            self.prove(caller_of_user(self.user))  # no stranger of the network takes its place

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and the request, which knows this connection."""
        super().connection_lost(exc)
        self._receiver.connections.closed(self)
        self._forget_request()
        for timer in (self._given_up, self._unread):
            if timer:
                timer.cancel()

    def on_response_complete(self) -> None:
        """Go on with the next request, and see that the client reads what it asked for."""
        self._await_reading()
        super().on_response_complete()
        if self.cycle and self.cycle.response_complete and not self._reading:
            self._forget_request()

    def pause_writing(self) -> None:
        """Stop writing until the client has read more, for a limited time."""
        super().pause_writing()
        self._await_reading()

    def prove(self, caller: str) -> None:
        """Note whose good token the client holds."""
        if not self.is_proven:
            self.is_proven = True
            self._receiver.connections.proven(self, caller)

    def close_at_once(self) -> None:
        """End the connection, whatever is under way on it."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read more of a request; end the connection where its end does not come in time."""
        self._unset_keepalive_if_required()
        self._begins = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # there is nothing but HTTP here, and the request was handed over as what it is
        except httptools.HttpParserError:  # not logged: anybody can send anything
            self.send_400_response(self._refusal or "this is not HTTP")
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"the head of the request is over {MAX_HEAD_BYTES} bytes")
        self._framing_bytes += len(data)
        if self._begins:
            self._framing_bytes = 0  # other requests may be in the same data
        elif self._reading and self._framing_bytes > MAX_FRAMING_BYTES:
            self.send_400_response(f"the request has over {MAX_FRAMING_BYTES} bytes besides its body")
        if self._reading:
            self._given_up = self._given_up or self.loop.call_later(REQUEST_SECONDS, self._give_up)
        elif self._given_up:
            self._given_up.cancel()
            self._given_up = None

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        super().on_message_begin()
        self._reading = self._in_head = self._begins = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, as uvicorn does, unless there are too many."""
        if len(self.headers) >= MAX_FIELDS:
            self._refusal = f"the head of the request has over {MAX_FIELDS} fields"
            raise ValueError(self._refusal)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, which has a limit of its own."""
        self._framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        self._reading = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Take a heartbeat the short way, when no request is before it on this connection."""
        self._in_head = False
        heartbeat = HEARTBEAT.fullmatch(self.url)
        idle = self.cycle is None or self.cycle.response_complete
        if heartbeat and idle and not self.expect_100_continue and self.parser.get_method() == b"POST":
            self.cycle = HeartbeatRequest(self, heartbeat[1].decode())  # type: ignore[assignment]
        else:
            own: dict[object, object] = {"prove": self.prove, "user": self.user}
            own |= {"on_end": self._on_end.append, "ends": lambda: self._ends}
            self.scope["extensions"] = {CONNECTION: own}
            super().on_headers_complete()
            self.cycle.transport = _Answers(self.transport)  # type: ignore[assignment]
            if len(self.pipeline) > MOST_WAITING:
                self._refusal = "too many requests wait on this connection"
                raise ValueError(self._refusal)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP as any error is answered, and end the connection."""
        if not self.transport.is_closing():
            document = error_document("VALIDATION_ERROR", msg)
            self.transport.write(compose(400, document, keep_alive=False))
            self.transport.close()

    def shutdown(self) -> None:
        """End the connection: at once where no request is complete; what is streamed learns of it."""
        self._ends = True
        for tell in self._on_end:
            tell()
        cycle: object = self.cycle
        if self._reading and isinstance(cycle, HeartbeatRequest):
            self.transport.close()
        else:
            super().shutdown()

    @property
    def _receiver(self) -> HeartbeatReceiver:
        receiver: HeartbeatReceiver = self.app.heartbeats
        return receiver

    def _forget_request(self) -> None:
        """Keep nothing of a request on a connection that waits for the next one: there are many such connections, and
        what each keeps is memory, and work for the garbage collector, for which everybody waits."""
        self.cycle = self.scope = None  # type: ignore[assignment]
        self.headers = []
        self._on_end = []

    def _await_reading(self, read_before: int | None = None) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(REQUEST_SECONDS, self._see_reading, read_before)

    def _see_reading(self, read_before: int | None) -> None:
        self._unread = None
        number, unsent = self.transport.get_extra_info("socket").fileno(), self.transport.get_write_buffer_size()
        waiting, read = tcp.progress(number, unsent)
        if not waiting:
            return
        if read == read_before:
            self.transport.abort()
        else:
            self._await_reading(read)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class HeartbeatRequest:
    """One heartbeat as it arrives, and its answer. uvicorn takes it for the connection's current cycle and uses these
    attributes."""

    __slots__ = (
        "_connection",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "response_complete",
        "worker_id",
    )

    def __init__(self, connection: HeartbeatConnection, worker_id: str) -> None:
        self._connection = connection
        self.worker_id = worker_id
        self.headers: Sequence[Header] = connection.headers
        self.keep_alive: bool = connection.parser.should_keep_alive()
        self.body = b""
        self.more_body = True
        self.disconnected = False
        self.response_complete = False

    @property
    def message_event(self) -> "HeartbeatRequest":
        """Return what uvicorn sets when more of the body, or all of it, is there, or the client is gone."""
        return self

    def set(self) -> None:
        """Hand the heartbeat over once it is complete; uvicorn also calls this when the connection ends, answered or
        not."""
        if self.disconnected or self.response_complete:
            return
        if len(self.body) > MAX_HEARTBEAT_BYTES:
            self.refuse(too_large(MAX_HEARTBEAT_BYTES))
        elif not self.more_body:
            receiver: HeartbeatReceiver = self._connection.app.heartbeats
            receiver.receive(self)

    @property
    def caller(self) -> str:
        """Return by what a stranger is known: the address, as a proxy says it that is believed."""
        connection = self._connection
        address = connection.client[0] if connection.client else ""
        trusted = getattr(connection.app, "trusted_hosts", None)  # of what stands around it where proxies are believed
        if trusted is not None and address in trusted:
            said = b", ".join(value for name, value in self.headers if name == b"x-forwarded-for").decode("latin-1")
            address = (trusted.get_trusted_client_address(said)[0] if said else "") or address
        return caller_of(address)

    def accept(self, answer: bytes) -> None:
        """Write the answer to a heartbeat that was stored."""
        self._connection.prove(self.worker_id)
        self.answer(answer)

    def refuse(self, error: SkyctlError) -> None:
        """Answer with an error."""
        status, document, headers = error_answer(error)
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self.answer(compose(status, document, encoded, keep_alive=self.keep_alive))

    def answer(self, answer: bytes) -> None:
        """Write an answer; abort the connection of a client that keeps sending and does not read its answers."""
        transport = self._connection.transport
        if self.disconnected or transport.is_closing():
            return
        self.response_complete = True
        if self._connection.flow.write_paused:
            transport.abort()
            return
        transport.write(answer)
        if not self.keep_alive:
            transport.close()
        self._connection.on_response_complete()


def compose(status: int, document: Any, headers: Sequence[Header] = (), *, keep_alive: bool) -> bytes:
    """Return a whole HTTP answer with a JSON document."""
    body = encode(document)
    fields = [JSON, (b"content-length", b"%d" % len(body)), NO_STORE, *headers]
    if not keep_alive:
        fields.append((b"connection", b"close"))
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return STATUS_LINE[status] + lines + b"\r\n" + body
