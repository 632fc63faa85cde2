"""Ask services of an overlay network by name, again and again, and say how they answered: a program of its own.

python asker.py PER_SECOND NAME...

Each name is asked by a thread, so that none waits for another: resolved anew each time, connected, and its page read.
Who is asked has longer than a busy machine needs, and too little for an address that nobody has any more. It runs in
the network namespace of a container. When its standard input ends it prints JSON.
"""

import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

_RESOLVER = ("127.0.0.11", 53)  # the engine's, in every container
_SECONDS = 10.0
_QUESTION_ID = 0x5B1A


@dataclass
class Told:
    """What one name answered: how often, how often not and why, and the longest time between two answers."""

    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    longest_gap_seconds: float = 0
    by: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Ask until the standard input ends."""
    per_second, names = float(sys.argv[1]), sys.argv[2:]
    over = threading.Event()
    told = {name: Told() for name in names}
    asking = [threading.Thread(target=_ask, args=(name, told[name], len(names) / per_second, over)) for name in names]
    for thread in asking:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in asking:
        thread.join()
    sys.stdout.write(json.dumps({name: vars(one) for name, one in told.items()}))


def _ask(name: str, told: Told, every_seconds: float, over: threading.Event) -> None:
    last = due = time.monotonic()
    while not over.is_set():
        try:
            page = _page(_address(name))
        except OSError as error:
            told.failures[str(error)] += 1
        else:
            now = time.monotonic()
            told.longest_gap_seconds = max(told.longest_gap_seconds, now - last)
            last = now
            told.answers += 1
            told.by[page] += 1
        due = max(due + every_seconds, time.monotonic() - every_seconds)
        over.wait(due - time.monotonic())
    told.longest_gap_seconds = max(told.longest_gap_seconds, time.monotonic() - last)


def _address(name: str) -> str:
    """The first address of a name; OSError where there is none. The resolver that Python brings reads this machine's
    settings."""
    header = struct.pack(">HHHHHH", _QUESTION_ID, 0x0100, 1, 0, 0, 0)
    question = bytes([len(name)]) + name.encode() + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(_SECONDS)
        resolver.connect(_RESOLVER)
        resolver.send(header + question)
        answer = resolver.recv(512)
    if not struct.unpack(">HHHHHH", answer[:12])[3]:
        raise OSError("no such name")
    record = len(header + question)
    is_pointer = answer[record] >= 0xC0  # to the name in the question, else the name once more
    record += (2 if is_pointer else len(name) + 2) + 10  # type, class, time to live and length
    return socket.inet_ntoa(answer[record : record + 4])


def _page(address: str) -> str:
    with socket.create_connection((address, 80), timeout=_SECONDS) as connection:
        connection.settimeout(_SECONDS)
        connection.sendall(b"GET /hostname HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
        answer = b""
        while more := connection.recv(4096):
            answer += more
    head, _, page = answer.partition(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
        raise OSError(head.split(b"\r\n")[0].decode(errors="replace") or "closed without an answer")
    return page.decode().strip()


if __name__ == "__main__":
    main()
