"""skyctl workers cordon and uncordon, alerts silence and unsilence: what they say, and where it is seen."""

import json
import re

import psycopg
import pytest

from tests.conftest import Cli
from tests.support.helpers import add_worker

pytestmark = pytest.mark.in_process


@pytest.fixture(autouse=True)
def workers(connection: psycopg.Connection) -> None:
    for name in ("w1", "w2"):
        add_worker(connection, name=name, status="active", last_heartbeat_at="now")


def said(cli: Cli, *command: str) -> str:
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cordon_is_said_and_seen(cli: Cli) -> None:
    assert said(cli, "workers", "cordon", "w1", "w2", "--reason", "odd latencies") == (
        "w1 takes nothing new\nw2 takes nothing new\n"
    )
    assert re.search(r"w1 +active cordoned ", said(cli, "workers", "list"))
    assert re.search(r"Cordoned +[0-9]+[sm] ago: odd latencies *\n", said(cli, "workers", "show", "w1"))
    document = json.loads(said(cli, "workers", "show", "w1", "-o", "json"))
    assert document["cordonReason"] == "odd latencies"
    assert document["cordonedAt"]
    assert said(cli, "workers", "uncordon", "w1") == "w1 takes new containers again\n"
    again = cli("workers", "uncordon", "w1")
    assert (again.returncode, again.stderr) == (0, "w1 is not cordoned: nothing to do\n")
    assert "cordoned w1" in said(cli, "events", "--kind", "cordoned,uncordoned")


def test_nothing_is_changed_unless_all_are_known_or_by_a_dry_run(cli: Cli) -> None:
    assert cli("workers", "cordon", "w1", "nobody").returncode == 3
    dry = cli("workers", "cordon", "w1", "--dry-run")
    assert re.fullmatch(r"w1 \([0-9a-f-]{36}\) would take nothing new\n", dry.stderr)
    assert "cordoned" not in said(cli, "workers", "list")
    said(cli, "workers", "cordon", "w1")
    assert "would be cordoned no more" in cli("workers", "uncordon", "w1", "--dry-run").stderr
    assert "cordoned" in said(cli, "workers", "list")


def test_cordons_and_drains_end_each_for_itself(cli: Cli) -> None:
    said(cli, "workers", "cordon", "w1")
    said(cli, "workers", "drain", "w1")
    assert said(cli, "workers", "undrain", "w1") == "w1 is still cordoned, until `skyctl workers uncordon w1`\n"
    said(cli, "workers", "drain", "w1")
    assert said(cli, "workers", "uncordon", "w1") == "w1 still drains, until `skyctl workers undrain w1`\n"
    assert said(cli, "workers", "undrain", "w1") == "w1 is back in service\n"


def test_a_silence_is_said_and_seen(cli: Cli) -> None:
    until = r"until [0-9 :-]+: memory is replaced\n"
    silenced = said(cli, "alerts", "silence", "w1", "--for", "2h", "--reason", "memory is replaced", "--utc")
    assert re.fullmatch(rf"alerts of w1 are silenced {until}", silenced.replace("T", " ").replace("Z", ""))
    listed = cli("alerts", "list", "--utc")
    assert listed.stderr == f"note: {silenced}"
    assert cli("alerts", "list", "-q").stderr == ""
    assert re.search(r"Alerts +silenced until .*: memory is replaced *\n", said(cli, "workers", "show", "w1"))
    assert "Alerts " not in said(cli, "workers", "show", "w2")
    assert json.loads(said(cli, "workers", "show", "w1", "-o", "json"))["alertsSilencedReason"] == "memory is replaced"
    assert said(cli, "alerts", "unsilence", "w1") == "alerts of w1 are sent again\n"
    again = cli("alerts", "unsilence", "w1")
    assert (again.returncode, again.stderr) == (0, "alerts of w1 are not silenced: nothing to do\n")
    assert cli("alerts", "list").stderr == ""


def test_a_silence_has_an_end(cli: Cli) -> None:
    missing = cli("alerts", "silence", "w1")
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (2, "error: --for is missing")
    wrong = cli("alerts", "silence", "w1", "--for", "tomorrow")
    assert (wrong.returncode, "--for" in wrong.stderr) == (2, True)
