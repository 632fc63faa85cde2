"""Another user who moves between two steps of this process, with that user's own rights alone."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

NUMBER = 54_321  # a user that nobody is
# What the interpreter tells before it does it: https://docs.python.org/3/library/audit_events.html
STEPS = ("open", "os.", "shutil.", "subprocess.", "fcntl.", "socket.connect")


class Adversary:
    """`moves_at`: the number of the step before which it moves."""

    def __init__(self) -> None:
        self.move: Callable[[], object] | None = None
        self.moves_at, self.steps = 0, 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _arguments: object) -> None:
        if self.move and event.startswith(STEPS):
            self.steps += 1
            if self.steps == self.moves_at:
                move, self.move = self.move, None
                with acting(), suppress(OSError):
                    move()


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


def at_each_step(scene: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> int:
    """Play a scene again and again; each time the adversary moves one step later, until there is no further step; how
    many there are. A scene gives what is done, and the adversary's move."""
    for moment in count(1):
        done, ADVERSARY.move = scene()
        ADVERSARY.moves_at, ADVERSARY.steps = moment, 0
        try:
            done()
        finally:
            was_asked, ADVERSARY.move = ADVERSARY.move is None, None
        if not was_asked:
            return moment - 1
    raise AssertionError


ADVERSARY = Adversary()
