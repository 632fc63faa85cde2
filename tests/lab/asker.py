"""Ask services of an overlay network by name, again and again, and say how they answered: a program of its own.

python asker.py PER_SECOND PATIENCE_SECONDS NAME...

Each name is asked by a thread, so that none waits for another: resolved anew each time, connected, and its page read.
PATIENCE_SECONDS is how long one who is asked has for each step. It runs in the network namespace of a container. When
its standard input ends it prints JSON.
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
_QUESTION_ID = 0x5B1A


@dataclass
class Told:
    """What one name answered: how often, how often not and why, the longest time between two answers, by whom, and how
    often another address than the first one."""

    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    longest_gap_seconds: float = 0
    by: Counter[str] = field(default_factory=Counter)
    others: int = 0


def main() -> None:
    """Ask until the standard input ends."""
    per_second, patience, names = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    socket.setdefaulttimeout(patience)
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
            page = _answer(_addresses(name), told)
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


def _answer(addresses: list[str], told: Told) -> str:
    """Ask the first address, and where it refuses the next, as clients do: an engine says to the others that a
    container is about to stop, and gives them two seconds to hear of it, whether they have or not."""
    for address in addresses[:-1]:
        try:
            return _page(address)
        except ConnectionRefusedError:
            told.others += 1
    return _page(addresses[-1])


def _addresses(name: str) -> list[str]:
    """The addresses of a name; OSError where there is none. The resolver that Python brings reads this machine's
    settings."""
    header = struct.pack(">HHHHHH", _QUESTION_ID, 0x0100, 1, 0, 0, 0)
    question = bytes([len(name)]) + name.encode() + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.connect(_RESOLVER)
        resolver.send(header + question)
        answer = resolver.recv(512)
    record, found = len(header + question), []
    for _ in range(struct.unpack(">HHHHHH", answer[:12])[3]):
        is_pointer = answer[record] >= 0xC0  # to the name in the question, else the name once more
        record += (2 if is_pointer else len(name) + 2) + 10  # type, class, time to live and length
        found.append(socket.inet_ntoa(answer[record : record + 4]))
        record += 4
    if not found:
        raise OSError("no such name")
    return found


def _page(address: str) -> str:
    with socket.create_connection((address, 80)) as connection:
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
