"""A port that answers Prometheus and nobody else: what is sent slowly, not at all or as garbage holds nothing up."""

import asyncio
import errno
import logging
import re
import socket
from collections.abc import Callable

from skyctl.domain.errors import Refused, ValidationError
from skyctl.host import vital
from skyctl.host.condition import Condition, unexpected

MOST_CONNECTIONS = 16
MAX_HEAD_BYTES = 16 * 1024
SECONDS = 5.0
BOUND_SECONDS = 30.0
log = logging.getLogger(__name__)

_RENDERING = Condition(log, "metrics_failed", "metrics_rendered")
REQUEST = re.compile(rb"GET /(?:metrics/?)?(?:\?\S*)? HTTP/1\.[01]")


def publish(host: str, port: int, render: Callable[[], bytes], media_type: str) -> None:
    """Answer `GET /metrics` there by what `render` returns, on a thread of its own until the process ends.

    Raises Refused where the port is taken, ValidationError where the address is not ours.
    """
    listener = _listen(host, port)
    answers = _Answers(render, media_type)
    vital.VitalLoop("metrics", lambda: asyncio.run(answers.serve(listener)), BOUND_SECONDS, only_told=True).start()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno not in (errno.EACCES, errno.EADDRINUSE):
            raise ValidationError(
                f"--metrics-host: cannot listen on {host!r}: {error.strerror}", "give an address of this machine"
            ) from error
        raise Refused(
            f"--metrics-port: cannot listen on {host}:{port}: {error.strerror}", "choose another --metrics-port"
        ) from error


class _Answers:
    """The connections of the port: so many at most, each for some seconds, and the oldest makes room for a new one."""

    def __init__(self, render: Callable[[], bytes], media_type: str) -> None:
        self._render = render
        self._media_type = media_type.encode()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until the process ends. Raises OSError where the system has nothing left to do it with;
        the listener stays."""
        async with await asyncio.start_server(self._accept, sock=listener.dup(), limit=MAX_HEAD_BYTES):
            while True:
                vital.goes_on()
                await asyncio.sleep(SECONDS)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for oldest in list(self._open.values())[: 1 - MOST_CONNECTIONS]:
            oldest.transport.abort()
        task = asyncio.create_task(self._answer(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(await self._read(reader))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return self._compose(b"431 Request Header Fields Too Large", b"")
        if not REQUEST.fullmatch(head.partition(b"\r\n")[0]):
            return self._compose(b"404 Not Found", b"only GET /metrics is answered here\n")
        try:
            metrics = self._render()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is answered
            _RENDERING.failed(unexpected(error), error=error)
            return self._compose(b"500 Internal Server Error", b"see the log\n")
        _RENDERING.works()
        return self._compose(b"200 OK", metrics)

    def _compose(self, status: bytes, body: bytes) -> bytes:
        fields = (b"HTTP/1.1 " + status, b"Content-Type: " + self._media_type, b"Content-Length: %d" % len(body))
        return b"\r\n".join((*fields, b"Connection: close", b"", body))
