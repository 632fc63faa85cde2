"""How commands end where nobody listens, a question is declined, or what is waited for fails."""

import subprocess
import sys

import psutil
import pytest

from tests.cli.test_top import Terminal
from tests.conftest import clean_environment
from tests.support.fleet import Fleet
from tests.support.helpers import eventually
from tests.support.in_process import InProcess

AWAY = {"SKYCTL_DATABASE_URL": "postgresql://127.0.0.1:1/x"}
FAILS = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.status = 'failed'; NEW.deployment_logs = 'no such image'; RETURN NEW; END $$;
    CREATE TRIGGER fail BEFORE UPDATE ON container_deployments FOR EACH ROW EXECUTE FUNCTION fail()
"""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("workers list 2>/dev/full", 5),
        ("workers lst 2>/dev/full", 2),
        ("workers 2>/dev/full", 2),
        ("workers list >/dev/full 2>/dev/full", 5),
        ("version >/dev/full", 1),
        ("help >/dev/full", 1),
    ],
)
def test_a_full_disk_is_an_error_of_results_and_of_nothing_else(line: str, code: int) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m skyctl {line}"],
        text=True,
        env=clean_environment() | AWAY,
        capture_output=True,
    )
    said = "error: No space left on device\nhint: make room there\n" if code == 1 else ""
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize(("keys", "code"), [("y\nn\n", 4), ("\x03", 130)], ids=["declined", "interrupted"])
def test_a_question_that_is_declined_leaves_everything(
    environment: dict[str, str], trio: Fleet, keys: str, code: int
) -> None:
    before = trio.connection.execute("SELECT count(*) FROM worker_events").fetchone()
    terminal = Terminal(environment, "workers", "confirm", "w1", "w2")
    try:
        terminal.until("that of w1", "[y/N]:")
        asked = psutil.Process(terminal.popen.pid)
        eventually(lambda: asked.status() == psutil.STATUS_SLEEPING)  # a signal just before it reads waits for a key
        terminal.press(keys)
        assert terminal.end() == code
    finally:
        terminal.close()
    assert ("error: not confirmed\r\nhint: nothing was changed" in terminal.raw) is (code == 4)
    assert trio.connection.execute("SELECT count(*) FROM worker_events").fetchone() == before


def test_a_deployment_that_is_waited_for_and_fails_is_partly_done(typed: InProcess, trio: Fleet) -> None:
    typed.engine = trio.engine
    trio.connection.execute(FAILS)
    done = typed("services", "deploy", "web", "--image", "app:1", "--wait")
    assert done.returncode == 7
    assert "error: web failed: no such image\nhint: see `skyctl services show web`" in done.stderr


def test_a_wait_that_takes_too_long_has_timed_out(typed: InProcess, trio: Fleet) -> None:
    typed.engine = trio.engine
    done = typed("services", "deploy", "web", "--image", "app:1", "--wait", "--timeout", "1s")
    assert done.returncode == 6
    assert "timed out: the deployment goes on" in done.stderr
