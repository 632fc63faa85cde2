"""`skyctl serve` from several processes: those that end are started again, or their parent ends as well."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from skyctl.api.processes import MOST_FAILED_STARTS
from tests.conftest import Process
from tests.support.helpers import eventually, metrics, ready

Serve = Callable[..., tuple[str, Process]]


def servers(process: Process) -> list[int]:
    """The processes that answer for it."""
    found = []
    for child in psutil.Process(process.popen.pid).children():
        with suppress(psutil.NoSuchProcess):  # also of one that its parent has not buried yet
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def running(serve: Serve, state: Path) -> Process:
    url, process = serve("--processes", "2", RUNTIME_DIRECTORY=str(state))
    eventually(lambda: ready(url))
    return process


def replace_all(process: Process) -> None:
    """Kill each of its processes, and wait until there are as many others."""
    before = servers(process)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(set(servers(process)) - set(before)) == len(before))


def test_it_serves_again_where_its_folder_was_taken_away(serve: Serve, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    url, process = serve("--processes", "2", TMPDIR=str(state), RUNTIME_DIRECTORY=str(state))
    eventually(lambda: ready(url))
    shutil.rmtree(state)
    replace_all(process)
    eventually(lambda: ready(url))
    assert "skyctl_http_requests_total" in metrics(url)
    assert process.stop() == 0
    assert not list(state.iterdir())


def test_what_a_killed_one_has_left_is_removed_and_what_another_uses_is_not(serve: Serve, tmp_path: Path) -> None:
    state = tmp_path / "state"
    killed = running(serve, state)
    left = set(state.iterdir())
    killed.popen.kill()
    killed.popen.wait()
    first, second = running(serve, state), running(serve, state)
    used = set(state.iterdir())
    assert not used & left
    assert len(used) == 2 * len(left)
    assert second.stop() == first.stop() == 0
    assert not list(state.iterdir())


def test_those_that_fail_together_are_one_failed_start(serve: Serve, tmp_path: Path) -> None:
    """As many as may fail one after the other: it tries again, and serves once that is mended."""
    config = tmp_path / "skyctl.yaml"
    config.touch(mode=0o600)
    url, process = serve("--processes", str(MOST_FAILED_STARTS), SKYCTL_CONFIG=str(config))
    eventually(lambda: len(servers(process)) == MOST_FAILED_STARTS and ready(url))
    config.unlink()
    for pid in servers(process):
        os.kill(pid, signal.SIGKILL)
    for _ in range(2 * MOST_FAILED_STARTS):
        process.until("action=process_ended")
    config.touch(mode=0o600)
    eventually(lambda: ready(url))
    assert process.stop() == 0


def test_a_start_that_fails_is_told_and_so_is_that_they_work_again(serve: Serve, tmp_path: Path) -> None:
    state, away = tmp_path / "state", tmp_path / "away"
    process = running(serve, state)
    state.rename(away)
    state.touch()
    os.kill(servers(process)[0], signal.SIGKILL)
    process.until("action=loop_failed loop='processes'")
    state.unlink()
    away.rename(state)
    process.until("action=loop_works loop='processes'")


def test_where_none_can_be_started_it_ends(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "skyctl.yaml"
    config.write_text("{}")
    config.chmod(0o600)
    url, process = serve("--processes", "2", SKYCTL_CONFIG=str(config))
    eventually(lambda: ready(url))
    config.unlink()
    for pid in servers(process):
        os.kill(pid, signal.SIGKILL)
    process.until("no process of it can be started any more")
    assert process.popen.wait(60) == 1
