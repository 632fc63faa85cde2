"""Emptying workers from the command line: asked for, watched, taken back; the fleet's monitor does the moving."""

import io
import json
import re
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from rich.console import Console

from skyctl.cli import views
from skyctl.documents.cli import drain_document, still_there_document
from skyctl.domain.drains import DrainOptions, StillThere
from skyctl.operations.admin import drains, migrations
from skyctl.operations.shared import lookup
from tests.conftest import Cli, Process
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS, TESTS, eventually

pytestmark = pytest.mark.in_process

AWAY = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def play(trio: Fleet, cli: Cli, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command, while the monitor takes its steps."""
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(cli, *arguments)
        while not command.done():
            trio.step()
        return command.result()


def is_drained(trio: Fleet, name: str) -> bool:
    return lookup.find_worker(trio.context, name).drain_requested_at is not None


def test_a_drain_is_watched_until_the_worker_is_empty(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", "b", to="w1")
    done = play(trio, cli, "workers", "drain", "w1", "--wait", "--max-parallel", "1")
    assert (done.returncode, done.stdout) == (0, "w1 drains\nw1: empty, 2 moved\n")
    assert "w1: 2 of 2 moved" in done.stderr
    assert "w1" not in trio.where().values()
    assert "empty" in next(line for line in cli("workers", "show", "w1").stdout.splitlines() if "Drain so far" in line)
    removed = cli("workers", "remove", "w1", "--yes")
    assert (removed.returncode, removed.stdout) == (0, "w1 removed\n")


def test_what_is_left_at_the_deadline_is_named(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    migrations.pause(trio.context, TESTS, None, None)
    done = play(trio, cli, "workers", "drain", "w1", "w2", "--wait", "--deadline", "1s")
    assert done.returncode == 7
    assert done.stdout == "w1 drains\nw2 drains\nw1: 1 container stays there, running: a\nw2: empty, 0 moved\n"
    assert "w1: a: the drain's deadline has passed" in done.stderr
    assert trio.running() == {"a": ["w1"]}
    refused = cli("workers", "remove", "w1", "--yes")
    assert refused.returncode == 4
    assert refused.stderr.splitlines()[0] == "error: w1 still has 1 container"


def test_who_waits_no_longer_is_told_what_is_still_there(cli: Cli, trio: Fleet) -> None:
    """Of which nobody can say all: its agent has not counted since ours left, and here the engine does not answer."""
    trio.deploy("a", to="w1")
    counted = "UPDATE container_workers SET current_load = jsonb_set(current_load, '{containerCount}', '5')"
    trio.connection.execute(counted)
    cli.environment |= AWAY
    done = play(trio, cli, "workers", "drain", "w1", "--wait", "--timeout", "2s")
    assert done.returncode == 6
    *_, over, still = done.stderr.splitlines()
    assert over.startswith("timed out: the drain goes on")
    assert re.fullmatch(
        "w1: still there: (a; )?what else runs there nobody can say: the engine does not answer: .+", still
    )


def test_what_is_left_is_explained_where_the_deadline_passed_before_anything_began(trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    drains.drain(trio.context, [trio.ids["w1"]], TESTS, DrainOptions(deadline=timedelta(seconds=1)))
    trio.context.db.ahead = timedelta(seconds=5)
    trio.settle()
    (progress,) = drains.progress(trio.context, [trio.ids["w1"]])
    assert progress.is_over
    assert progress.reasons == ["a: the drain's deadline has passed"]


def test_what_is_left_is_stopped_by_force(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    migrations.pause(trio.context, TESTS, None, None)
    done = play(trio, cli, "workers", "drain", "w1", "--wait", "--deadline", "1s", "--force")
    assert (done.returncode, done.stdout) == (0, "w1 drains\nw1: empty, 0 moved\n")
    assert trio.services()["a"].status == "stopped"


def test_a_drain_goes_on_when_nobody_watches(cli: Cli, trio: Fleet, start: Callable[..., Process]) -> None:
    trio.deploy("a", to="w1")
    migrations.pause(trio.context, TESTS, None, None)
    watching = start("workers", "drain", "w1", "--wait")
    watching.until("0 of 1 moved")
    assert watching.stop(signal.SIGINT) == 130
    [said] = [line for line in watching.seen if line.startswith("stopped watching")]
    assert "`skyctl workers drain w1 --wait`" in said
    assert "`skyctl workers undrain w1`" in said
    late = cli("workers", "drain", "w1", "--wait", "--timeout", "1s")
    assert late.returncode == 6
    assert "timed out: the drain goes on" in late.stderr
    assert is_drained(trio, "w1")
    asked = trio.connection.execute("SELECT count(*) FROM worker_events WHERE kind = 'drain_requested'").fetchone()
    assert asked == (1,), "the same wish again is no news"
    migrations.resume(trio.context, TESTS)
    assert play(trio, cli, "workers", "drain", "w1", "--wait").returncode == 0
    assert trio.where() != {"a": "w1"}


def test_a_drain_that_is_taken_back_while_it_is_watched(cli: Cli, trio: Fleet, start: Callable[..., Process]) -> None:
    trio.deploy("a", to="w1")
    watching = start("workers", "drain", "w1", "--wait")
    watching.until("0 of 1 moved")
    assert cli("workers", "undrain", "w1").stdout == "w1 is back in service\n"
    assert watching.popen.wait(PATIENCE_SECONDS) == 7


def test_without_waiting_it_says_how_to_watch(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", "b", to="w1")
    done = cli("workers", "drain", "w1", "--deadline", "2h")
    assert (done.returncode, done.stdout) == (0, "w1 drains\n")
    assert "2 containers to be moved: watch it with `skyctl workers drain w1 --wait`" in done.stderr
    shown = next(line for line in cli("workers", "show", "w1").stdout.splitlines() if "Drain so far" in line)
    assert "0 of 2 moved, 2 left; deadline in 1h 59m" in shown or "deadline in 2h" in shown
    [document] = json.loads(cli("workers", "drain", "w1", "-o", "json").stdout)["drains"]
    assert (document["workerName"], document["moved"], document["left"]) == ("w1", 0, ["a", "b"])


def test_removing_drains_first_where_that_is_wanted(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    dry = cli("workers", "remove", "w1", "--drain", "--dry-run")
    assert (dry.returncode, is_drained(trio, "w1")) == (0, False)
    assert "would be drained and removed" in dry.stderr
    done = play(trio, cli, "workers", "remove", "w1", "--drain", "--yes")
    assert (done.returncode, done.stdout) == (0, "w1: empty, 1 moved\nw1 removed\n")
    assert trio.where() != {"a": "w1"}


def test_a_worker_that_could_not_be_emptied_is_not_removed(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    migrations.pause(trio.context, TESTS, None, None)
    done = play(trio, cli, "workers", "remove", "w1", "--drain", "--deadline", "1s", "--yes")
    assert (done.returncode, done.stdout) == (7, "w1: 1 container stays there, running: a\n")
    assert lookup.find_worker(trio.context, "w1")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["drain", "w1", "--force"], 2, "--force needs --deadline"),
        (["drain", "w1", "--plan", "--wait"], 2, "nothing to --wait for"),
        (["drain", "w1", "--timeout", "1m"], 2, "--timeout needs --wait"),
        (["drain", "w1", "--deadline", "soon"], 2, "--deadline: 'soon' is not accepted"),
        (["drain", "w1", "--max-parallel", "0"], 2, "--max-parallel"),
        (["drain", "w1", "nobody"], 3, "there is no worker 'nobody'"),
        (["drain", "w1", "--plan"], 5, "/nowhere/docker.sock"),
        (["remove", "w1", "--timeout", "1m"], 2, "--deadline and --timeout need --drain"),
    ],
)
def test_mistakes_change_nothing(cli: Cli, trio: Fleet, arguments: list[str], code: int, words: str) -> None:
    done = cli("workers", *arguments, **AWAY)
    assert (done.returncode, done.stdout) == (code, "")
    error, hint = done.stderr.splitlines()
    assert words in error
    assert hint.startswith("hint: ")
    assert not is_drained(trio, "w1")


def test_a_terminal_gets_a_bar_and_a_quiet_one_nothing(cli: Cli, trio: Fleet) -> None:
    quiet = play(trio, cli, "workers", "drain", "w1", "--wait", "--quiet")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert eventually(lambda: is_drained(trio, "w1"))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_waited_for_is_shown_once_while_it_is_waited_for(trio: Fleet, is_terminal: bool) -> None:
    drains.drain(trio.context, [trio.ids["w1"]], TESTS)
    still_there = StillThere([], ["web", "outside of Swarm (2)"], "its agent is silent")
    shown, there = io.StringIO(), still_there_document(still_there)
    screen = Console(file=shown, force_terminal=is_terminal, highlight=False, width=200)
    with views.drains.progress(screen, lambda _: there, quiet=False) as show:
        for _ in range(2):
            show([drain_document(each) for each in drains.progress(trio.context, [trio.ids["w1"]])])
    words = (
        "w1: still there: not ours: web, outside of Swarm (2); what else runs there nobody can say: its agent is silent"
    )
    assert shown.getvalue().count(words) == 1
    assert "0 of 0 moved" in shown.getvalue()
