"""The stream of a service's logs: frames of Docker's API, each with a line of one container, to lines."""

from collections.abc import Iterable, Iterator

from skyctl.domain.logs import LogLine

_HEADER = 8  # which stream, three zeros, and the length of what follows, the most significant byte first
_TASK, _NODE = "com.docker.swarm.task.id", "com.docker.swarm.node.id"


def lines(parts: Iterable[bytes], *, framed: bool) -> Iterator[LogLine]:
    """Return the lines of a stream that comes in any parts: of a container with a terminal they are not framed."""
    return map(_line, _frames(parts) if framed else _split(parts))


def _frames(parts: Iterable[bytes]) -> Iterator[bytes]:
    left = b""
    for part in parts:
        left += part
        while len(left) >= _HEADER and len(left) >= (end := _HEADER + int.from_bytes(left[4:_HEADER])):
            yield left[_HEADER:end]
            left = left[end:]


def _split(parts: Iterable[bytes]) -> Iterator[bytes]:
    left = b""
    for part in parts:
        *whole, left = (left + part).split(b"\n")
        yield from whole
    if left:
        yield left


def _line(frame: bytes) -> LogLine:
    """The line of a frame: the time, `key=value` with commas between, the text."""
    at, _, rest = frame.decode(errors="replace").rstrip("\r\n").partition(" ")
    details, _, text = rest.partition(" ")
    known = dict(each.partition("=")[::2] for each in details.split(","))
    return LogLine(at, known.get(_TASK, ""), known.get(_NODE, ""), text)
