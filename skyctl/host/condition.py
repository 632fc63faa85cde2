"""What is well or fails, in the log: a line for each change of it, and none for what only repeats."""

import logging
import threading
import time

QUIET_SECONDS = 5.0
MOST_REASONS = 16


class Condition:
    """Something that is tried again and again: logged when it begins to fail, for each new reason, and when it is well
    again, with how often it failed.

    It is well again at the first success after `quiet_seconds` without a failure, so that what fails now and then is
    one spell. Any thread may report.
    """

    def __init__(
        self, log: logging.Logger, fails: str, works: str, about: str = "", *, quiet_seconds: float = QUIET_SECONDS
    ) -> None:
        self._log, self._fails, self._works = log, fails, works
        self._about = f" {about}" if about else ""
        self._quiet_seconds = quiet_seconds
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._failures = 0
        self._began_at = self._failed_at = 0.0

    def failed(self, reason: str, count: int = 1, *, error: Exception | None = None) -> None:
        """Note a failure, of `count` at once; with an `error` that nobody expected its traceback is logged."""
        with self._lock:
            self._failed_at = time.monotonic()
            if not self._failures:
                self._began_at = self._failed_at
            self._failures += count
            if reason in self._told or len(self._told) >= MOST_REASONS:
                return
            self._told.add(reason)
        level = logging.ERROR if error else logging.WARNING
        self._log.log(level, "action=%s%s reason=%r", self._fails, self._about, reason, exc_info=error)

    def works(self) -> None:
        """Note a success."""
        if not self._failures:
            return
        with self._lock:
            if not self._failures or time.monotonic() < self._failed_at + self._quiet_seconds:
                return
            failures, seconds = self._failures, self._failed_at - self._began_at
            self._failures = 0
            self._told.clear()
        self._log.warning(
            "action=%s%s failures=%d failed_for_seconds=%.0f", self._works, self._about, failures, seconds
        )


def unexpected(error: Exception) -> str:
    """The reason of an error that nobody expected."""
    return f"{type(error).__name__}: {error}"


class Conditions(dict[str, Condition]):
    """The same of several things, each called `about`: one by each name, made when it is first asked for."""

    def __init__(self, log: logging.Logger, fails: str, works: str, about: str) -> None:
        super().__init__()
        self._log, self._fails, self._works, self._about = log, fails, works, about

    def __missing__(self, name: str) -> Condition:
        return self.setdefault(name, Condition(self._log, self._fails, self._works, f"{self._about}={name}"))
