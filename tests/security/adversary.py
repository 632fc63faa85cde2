"""Another user who moves between any two steps of this process: at each of its audit events, with that user's own
rights alone."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

NUMBER = 54_321  # a user that nobody is
EVENTS = {"open", "os.chown", "os.chmod", "os.mkdir", "os.rename", "os.remove", "os.link", "os.truncate", "os.listdir"}

_moves: list[Callable[[], object]] = []


def _hook(event: str, _arguments: object) -> None:
    if not (_moves and event in EVENTS):
        return
    move = _moves.pop()
    with acting():
        try:
            with suppress(OSError):
                move()
        finally:
            _moves.append(move)


@contextmanager
def acting() -> Iterator[None]:
    """Within the block this process has the other user's rights."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NUMBER)
    os.seteuid(NUMBER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def moving(move: Callable[[], object]) -> Iterator[None]:
    """Within the block the adversary tries this at each step; what it may not do fails."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    _moves.append(move)
    try:
        yield
    finally:
        _moves.clear()


_installed: list[bool] = []
