"""A Python process whose wall clock is wrong, by libfaketime of Debian's package `faketime`; its monotonic clock stays
right."""

import atexit
from pathlib import Path

import pytest

_LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
# libfaketime takes the monotonic time until which Python sleeps for a wrong one.
_OTHER_SLEEP = "import threading, time\ntime.sleep = lambda seconds: threading.Event().wait(seconds) and None\n"

needs_false_clock = pytest.mark.skipif(_LIBRARY is None, reason="needs libfaketime: apt-get install faketime")


def false_clock(folder: Path, *, hours: float) -> dict[str, str]:
    """The environment of such a process. Called again for the same folder, it sets the clock of those that run."""
    _sweep()
    (folder / "sitecustomize.py").write_text(_OTHER_SLEEP)
    wanted, half = folder / "clock", folder / "clock.part"
    half.write_text(f"{hours * 3600:+g}s\n")
    half.replace(wanted)
    return {
        "LD_PRELOAD": str(_LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(wanted),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(folder),
    }


def _sweep() -> None:
    """Remove what libfaketime keeps in memory for processes that were killed: the next one of that number would wait
    for it."""
    for left in [*Path("/dev/shm").glob("faketime_shm_*"), *Path("/dev/shm").glob("sem.faketime_sem_*")]:
        if not Path("/proc", left.name.rpartition("_")[2]).exists():
            left.unlink(missing_ok=True)


if _LIBRARY:
    atexit.register(_sweep)
