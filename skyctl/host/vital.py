"""The loops that a process lives by: whatever one of them meets is logged and survived, and one that stands still is
told, and is the end of the process, so that its service starts it again, unless all else goes on without it.

The time that a loop stands still is counted in ticks of a thread of its own, the watch: time in which the whole process
stood still, or got no turn, is nobody's.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from skyctl.domain.errors import ExitCode
from skyctl.domain.shortages import shortage
from skyctl.host import sd_notify
from skyctl.host.condition import Condition, unexpected

TICK_SECONDS = 1.0
PAUSE_SECONDS = 1.0  # after what a loop did not expect
LOST_AFTER_BOUNDS = 3

log = logging.getLogger(__name__)

_here = threading.local()


class Vital:
    """What must come round again and again: where it stands still for longer than its bound, `/readyz` says 503 and the
    watchdog is not fed; three times that long, and the process ends. Of what is only told, `/readyz` says so, and no
    more."""

    def __init__(self, name: str, bound_seconds: float, *, only_told: bool = False) -> None:
        self.name = name
        self._bound_seconds = bound_seconds
        self.only_told = only_told
        self._stood_seconds = 0.0
        self._rounds = self._rounds_seen = 0
        self._is_resting = False
        self._working = Condition(log, "loop_failed", "loop_works", f"loop={name!r}")

    @property
    def stands_still(self) -> bool:
        """Tell whether it has not come round within its bound."""
        return self._stood_seconds > self._bound_seconds

    @property
    def is_lost(self) -> bool:
        """Tell whether it is not waited for any longer."""
        return not self.only_told and self._stood_seconds > LOST_AFTER_BOUNDS * self._bound_seconds

    def begin(self) -> None:
        """Be watched, and be what this thread lives by."""
        _here.vital = self
        _vitals.append(self)

    def goes_on(self) -> None:
        """Note that it has come round, or got on within a long round."""
        self._rounds += 1

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Wait for what may take any time."""
        self._is_resting = True
        try:
            yield
        finally:
            self.goes_on()
            self._is_resting = False

    def failed(self, error: Exception) -> None:
        """Log what it has met and survives. Never raises."""
        with suppress(Exception):  # where there is no memory there may be no log either
            self._working.failed(unexpected(error), error=None if shortage(error) else error)

    def works(self) -> None:
        """Note that it has met nothing this time."""
        self._working.works()

    def count(self, seconds: float) -> None:
        """Add what has passed since the last count to the time that it stands still, if it does."""
        stands = self._rounds == self._rounds_seen and not self._is_resting
        self._stood_seconds = self._stood_seconds + seconds if stands else 0.0
        self._rounds_seen = self._rounds


class VitalLoop(Vital):
    """A thread that takes a step, rests for as many seconds as that returns (None: until it is woken), and takes the
    next. It survives whatever a step raises."""

    def __init__(
        self, name: str, step: Callable[[], float | None], bound_seconds: float, *, only_told: bool = False
    ) -> None:
        super().__init__(name, bound_seconds, only_told=only_told)
        self._step = step
        self._wake = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, which lives until `end` or the end of the process. Raises RuntimeError where the system has
        none to give."""
        self._thread.start()

    def wake(self) -> None:
        """End the rest, or leave out the next one."""
        self._wake.set()

    def end(self) -> None:
        """End the thread once its step is over."""
        self._is_over = True
        self._wake.set()
        if self._thread.ident:
            self._thread.join()

    def count(self, seconds: float) -> None:
        """Count as of any other; a thread that is gone rests no more."""
        self._is_resting = self._is_resting and self._thread.is_alive()
        super().count(seconds)

    def _run(self) -> None:
        self.begin()
        while not self._is_over:
            try:
                self._go_round()
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop goes on
                if self in _vitals:  # else the process ends, and takes away what the loop works with
                    self.failed(error)
                time.sleep(PAUSE_SECONDS)
        with suppress(ValueError):  # they have all stood down
            _vitals.remove(self)

    def _go_round(self) -> None:
        self._wake.clear()
        if self._is_over:
            return
        self.goes_on()
        pause = self._step()
        self.works()
        with self.resting():
            self._wake.wait(pause)


_vitals: list[Vital] = []
_watching = threading.Event()


def goes_on() -> None:
    """Note that what this thread lives by, if anything, gets on within a long round."""
    vital = getattr(_here, "vital", None)
    if vital is not None:
        vital.goes_on()


def standing_still() -> list[str]:
    """Return the names of the loops of this process that have not come round within their bounds."""
    return sorted(vital.name for vital in _vitals.copy() if vital.stands_still)


def watch() -> None:
    """Watch over the loops of this process from now on, and feed the service manager's watchdog as long as none stands
    still but what is only told. Raises RuntimeError where the system has no thread to give."""
    if not _watching.is_set():
        threading.Thread(target=_watch, name="watch", daemon=True).start()
        _watching.set()


def stand_down() -> None:
    """Watch over none of them any more: the process ends, which may take its time, and what its loops meet then is
    no news."""
    _vitals.clear()


def _watch() -> None:
    period = sd_notify.watchdog_seconds()
    tick = min(TICK_SECONDS, period / 3) if period else TICK_SECONDS
    known: list[str] = []
    while True:
        with suppress(Exception):  # of the log, or of memory: the next tick is another try
            for vital in _vitals.copy():
                vital.count(tick)
            still = standing_still()
            if period and all(vital.only_told for vital in _vitals.copy() if vital.stands_still):
                sd_notify.notify("WATCHDOG=1")
            known, before = still, known
            _tell(before, still)
            _end_where_lost()
        time.sleep(tick)


def _tell(before: list[str], still: list[str]) -> None:
    for name in still:
        if name not in before:
            log.error("action=loop_stands_still loop=%r", name)
    for name in before:
        if name not in still:
            log.warning("action=loop_goes_on loop=%r", name)


def _end_where_lost() -> None:
    lost = [vital.name for vital in _vitals.copy() if vital.is_lost]
    if not lost:
        return
    try:
        log.critical("action=ends reason='a loop stands still' loops=%r", lost)
    finally:
        os._exit(ExitCode.UNEXPECTED)  # an orderly end might wait for the very same
