"""Loops that a process lives by: they survive what they meet, and one that stands still is its process's end."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

import pytest

from skyctl.host import vital
from skyctl.host.vital import VitalLoop
from tests.conftest import clean_environment
from tests.support.helpers import PATIENCE_SECONDS

STANDS_STILL = """
import logging, threading
from skyctl.host import vital
logging.basicConfig()
vital.VitalLoop("deaf", threading.Event().wait, 0.5).start()
vital.VitalLoop("well", lambda: 0.1, 0.5).start()
vital.VitalLoop("rests", lambda: None, 0.5).start()
vital.watch()
threading.Event().wait()
"""
NO_THREAD_LEFT = """
import threading
from skyctl.host import vital
turns = iter(range(4))
def step():
    turn = next(turns)
    print(turn, flush=True)
    threading.stack_size(2**46 if turn == 1 else 0)  # more than there is, of which the second turn has one thread
    threading.Thread(target=int).start()
    return 0.0
loop = vital.VitalLoop("starts", step, 5)
loop.start()
threading.Event().wait()
"""


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        yield made


def run(program: str, notify: socket.socket | None = None) -> "subprocess.Popen[str]":
    watchdog = {"NOTIFY_SOCKET": notify.getsockname(), "WATCHDOG_USEC": "600000"} if notify else {}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**clean_environment(), **watchdog},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_stands_still(process: "subprocess.Popen[str]", notify: socket.socket) -> str:
    """Wait until a loop is told to stand still; return the line, and forget what fed the watchdog until then."""
    assert process.stderr
    told = process.stderr.readline()
    assert "action=loop_stands_still loop='deaf'" in told
    with suppress(BlockingIOError):
        while notify.recv(4096):
            pass
    return told


def no_memory() -> None:
    bytearray(2**62)


def no_files() -> None:
    os.dup2(0, 2**30)


@pytest.mark.parametrize("meets", [no_memory, no_files, {}.popitem])
def test_it_survives_what_it_does_not_expect(meets: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    comes_round = threading.Event()
    turns: list[int] = []

    def step() -> float:
        turns.append(len(turns))
        if len(turns) == 1:
            meets()
        comes_round.set()
        return 0.0

    loop = VitalLoop("tried", step, bound_seconds=60)
    loop.start()
    assert comes_round.wait(PATIENCE_SECONDS)
    loop.end()
    assert "action=loop_failed loop='tried'" in caplog.text


def test_what_it_meets_at_the_end_of_its_process_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    begun, gone, again = threading.Event(), threading.Event(), threading.Event()

    def step() -> float:
        if gone.is_set():
            again.set()
            raise RuntimeError("Event loop is closed")
        begun.set()
        assert gone.wait(PATIENCE_SECONDS)
        raise CancelledError

    loop = VitalLoop("tried", step, bound_seconds=60)
    loop.start()
    assert begun.wait(PATIENCE_SECONDS)
    vital.stand_down()
    gone.set()
    assert again.wait(PATIENCE_SECONDS)
    loop.end()
    assert "Traceback" not in caplog.text
    assert "tried" not in caplog.text


def test_it_survives_that_no_thread_can_be_started() -> None:
    with run(NO_THREAD_LEFT) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
        process.kill()
        assert "can't start new thread" in process.communicate()[1]


def test_a_loop_that_stands_still_is_the_end_of_its_process(notify: socket.socket) -> None:
    with run(STANDS_STILL, notify) as process:
        said = until_it_stands_still(process, notify)
        said += process.communicate(timeout=PATIENCE_SECONDS)[1]
        assert process.returncode == 1
    assert "action=ends reason='a loop stands still' loops=['deaf']" in said
    assert "'well'" not in said
    assert "'rests'" not in said
    with pytest.raises(BlockingIOError):
        notify.recv(4096)


def test_a_loop_that_is_only_told_is_not_the_end(notify: socket.socket) -> None:
    with run(STANDS_STILL.replace("0.5).start()", "0.5, only_told=True).start()", 1), notify) as process:
        until_it_stands_still(process, notify)
        notify.settimeout(PATIENCE_SECONDS)
        assert [notify.recv(4096) for _ in range(10)] == 10 * [b"WATCHDOG=1"], "one for each 0.2 s that are counted"
        process.kill()
        assert "action=ends" not in process.communicate()[1]
