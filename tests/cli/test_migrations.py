"""`skyctl migrations` and `skyctl policy` as a person types them."""

import json

import psycopg
import pytest

from skyctl.domain.states import MigrationPolicy
from skyctl.operations.admin import migrations
from skyctl.operations.monitor import engine_watch
from skyctl.operations.shared import leadership
from tests.conftest import Cli
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, eventually, look

pytestmark = pytest.mark.in_process

LARGE = {"cores": 3.0, "memory": 3000}


def ask_first(trio: Fleet) -> None:
    migrations.set_policy(trio.context, trio.organization, MigrationPolicy.MANUAL, TESTS)


def identity(trio: Fleet, name: str) -> str:
    return str(trio.migrations()[name].id)


def test_list_tells_where_each_goes_and_why_it_is_not_there(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    trio.deploy("large", to="w1", **LARGE)
    trio.deploy("there", to="w2", **LARGE)
    trio.deploy("too", to="w3", **LARGE)
    trio.fail("w1")
    trio.settle()
    done = cli("migrations", "list")
    heading, large, small, total = done.stdout.splitlines()
    assert heading.split() == ["ID", "SERVICE", "FROM", "→", "TO", "STATE", "CAUSE", "TRIES", "AGE", "REASON"]
    assert large.split()[:7] == [identity(trio, "large")[:8], "large", "w1", "→", "-", "queued", "failure"]
    assert "lacks 2 CPU cores (needs 3, has 1 free) and 1904 MiB of memory (needs 3000, has 1096 free)" in large
    assert small.split()[1] == "a"
    assert "completed" in small
    assert total == "2 migrations"
    assert cli("migrations", "list", "--state", "queued", "--state", "held", "-o", "name").stdout.split() == [
        identity(trio, "large")
    ]
    document = json.loads(cli("migrations", "list", "--limit", "1", "-o", "json").stdout)
    assert (document["total"], document["pause"], document["migrations"][0]["serviceName"]) == (2, None, "large")
    target = str(trio.where()["a"])
    assert json.loads(cli("migrations", "list", "--worker", target, "-o", "json").stdout)["total"] == 1
    assert cli("migrations", "list", "--state", "stuck").returncode == 2
    assert cli("migrations", "list", "--worker", "nobody").returncode == 3
    why = cli("workers", "why", "w1").stdout
    assert "1: large" in why
    assert "large: queued: no room" in why
    assert "lacks 2 CPU cores" in why
    explained = json.loads(cli("workers", "why", "w1", "-o", "json").stdout)
    assert [each["name"] for each in explained["containers"]] == ["large"]
    assert [each["state"] for each in explained["migrations"]] == ["queued"]


def test_show_tells_the_history_and_what_became_of_the_old_container(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    trio.fail("w1")
    trio.settle()
    shown = cli("migrations", "show", identity(trio, "a")[:8])
    assert shown.returncode == 0, shown.stderr
    assert "not known to have stopped: it does when its worker returns" in shown.stdout
    for kind in ("migration_queued", "migration_started", "migration_completed"):
        assert kind in shown.stdout
    trio.heal("w1")
    trio.settle()
    document = json.loads(cli("migrations", "show", identity(trio, "a"), "-o", "json").stdout)
    assert document["sourceStoppedAt"]
    assert [each["kind"] for each in document["events"]][-1] == "ghost_stopped"
    missing = cli("migrations", "show", "nobody")
    assert missing.returncode == 3
    assert missing.stderr == "error: there is no migration 'nobody'\nhint: see `skyctl migrations list`\n"


def test_approve_and_reject(cli: Cli, trio: Fleet) -> None:
    ask_first(trio)
    trio.deploy("a", "b", "c", to="w1")
    trio.fail("w1")
    trio.settle()
    assert "note: 3 wait for approval; see `skyctl migrations approve`" in cli("migrations", "list").stderr
    done = cli("migrations", "approve", identity(trio, "a"), "b")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    some = cli("migrations", "reject", "a", "c")
    assert some.returncode == 7
    assert "error: a's migration is queued" in some.stderr
    assert some.stdout == f"c ({identity(trio, 'c')[:8]}) stays where it is\n"
    again = cli("migrations", "reject", identity(trio, "c"))
    assert again.returncode == 4
    assert again.stderr.splitlines()[0] == "error: c's migration is cancelled"
    trio.settle()
    assert trio.where()["c"] == "w1"
    assert "w1" not in (trio.where()["a"], trio.where()["b"])


def test_approve_all(cli: Cli, trio: Fleet) -> None:
    ask_first(trio)
    assert cli("migrations", "approve", "--all").stderr == "no migration waits for approval\n"
    trio.deploy("a", "b", to="w1")
    trio.fail("w1")
    trio.settle()
    assert cli("migrations", "approve").returncode == 2
    assert cli("migrations", "approve", "a", "--all").returncode == 2
    done = cli("migrations", "approve", "--all")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    trio.settle()
    assert {each.state.value for each in trio.migrations().values()} == {"completed"}


def test_retry_and_cancel(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    trio.engine.absent.add(("*", "app:1"))
    trio.fail("w1")
    eventually(lambda: trio.step() and trio.migrations()["a"].state == "failed")
    assert "tried again in" in cli("migrations", "show", "a").stdout
    assert cli("migrations", "retry", "a").stdout.endswith("is tried again\n")
    assert trio.migrations()["a"].attempts == 0
    assert cli("migrations", "cancel", "a").stdout.endswith("is cancelled\n")
    trio.settle()
    assert trio.where() == {"a": "w1"}
    assert cli("migrations", "cancel", "a").returncode == 3


def test_one_that_is_over_is_not_meant_by_its_services_name(
    cli: Cli, trio: Fleet, connection: psycopg.Connection
) -> None:
    """Also where its id happens to begin with that name."""
    trio.deploy("a", to="w1")
    ask_first(trio)
    trio.fail("w1")
    trio.settle()
    assert cli("migrations", "reject", "a").returncode == 0
    connection.execute("UPDATE container_migrations SET id = overlay(id::text PLACING 'a' FROM 1)::uuid")
    missing = cli("migrations", "cancel", "a")
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (3, "error: there is no migration 'a'")
    over = identity(trio, "a")
    assert cli("migrations", "show", over[:8]).returncode == 0
    connection.execute(
        "INSERT INTO container_migrations (id, service_id, source_worker_id, state, finished_at)"
        " SELECT ('a' || substr(gen_random_uuid()::text, 2))::uuid, service_id, source_worker_id, 'cancelled', now()"
        " FROM container_migrations, generate_series(1, 20)"
    )
    connection.execute(
        "INSERT INTO container_migrations (service_id, source_worker_id, state, created_at)"
        " SELECT service_id, source_worker_id, 'queued', now() + interval '1 s' FROM container_migrations LIMIT 1"
    )
    assert json.loads(cli("migrations", "show", "a", "-o", "json").stdout)["state"] == "queued"


def test_one_is_meant_by_the_slug_of_its_service_too(cli: Cli, trio: Fleet) -> None:
    trio.deploy("Ab", to="w1")
    ask_first(trio)
    trio.fail("w1")
    trio.settle()
    for reference in ("Ab", "ab"):
        assert json.loads(cli("migrations", "show", reference, "-o", "json").stdout)["serviceName"] == "Ab"


@pytest.mark.parametrize("length", ["soon", "0s", "-5m", "1.5h", "10", "400d", "30m1h", ""])
def test_a_length_that_is_none(cli: Cli, length: str) -> None:
    done = cli("migrations", "pause", "--for", length)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert f"--for: {length!r} is not accepted" in error
    assert "90s, 30m, 1h30m, 1d or 2w" in hint


def test_pause_and_resume(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    done = cli("migrations", "pause", "--for", "2h", "-m", "network\twork")
    assert done.returncode == 2, "control characters"
    assert cli("migrations", "pause", "--for", "2h", "--reason", "network work").stdout == "paused for 2h\n"
    trio.fail("w1")
    trio.settle()
    listed = cli("migrations", "list")
    said = [f"for another {left}: network work; see `skyctl migrations resume`" for left in ("2h", "1h 59m")]
    assert any(each in listed.stderr for each in said)
    assert "queued" in listed.stdout
    document = json.loads(cli("migrations", "list", "-o", "json").stdout)
    assert document["pause"]["reason"] == "network work"
    assert cli("migrations", "pause", "--reason", "a", "--message", "b").returncode == 2
    for option in ("--message", "-m"):
        assert cli("migrations", "pause", option, "as it was called").returncode == 0
        paused = json.loads(cli("migrations", "list", "-o", "json").stdout)["pause"]
        assert paused["reason"] == "as it was called"
    assert cli("migrations", "pause").stdout == "paused until `skyctl migrations resume`\n"
    assert cli("migrations", "resume", "--yes").stdout == "the pause is over\n"
    assert cli("migrations", "resume", "--yes").stderr == "nothing is held\n"
    trio.settle()
    assert trio.where()["a"] != "w1"


def test_those_of_a_mass_failure_are_shown_as_held(cli: Cli, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    for name in ("w1", "w2", "w3"):
        trio.engine.lose(trio.nodes[name])
    trio.connection.execute("UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour'")
    look(trio.context)
    trio.settle()
    listed = cli("migrations", "list")
    assert " held " in listed.stdout
    assert "note: held: 3 of 3 workers failed at once: see `skyctl migrations resume`" in listed.stderr
    assert cli("migrations", "resume", "--yes").stdout == "resumed for 3 workers\n"


def test_an_engine_that_cannot_be_asked_is_said(cli: Cli, trio: Fleet) -> None:
    lease = leadership.lead(trio.context, "tests", lambda _: True)
    assert lease
    engine_watch.note_away(lease, "the engine does not answer")
    listed = cli("migrations", "list")
    assert listed.stdout == "No migrations.\n"
    assert "note: the engine cannot be asked, nothing moves: the engine does not answer" in listed.stderr


def test_policies(cli: Cli, trio: Fleet) -> None:
    assert "No organizations" in cli("policy", "get").stdout
    assert trio.organization.slug == "default"
    assert cli("policy", "set", "default", "manual").stdout == "default: manual\n"
    assert cli("policy", "get").stdout.split() == ["ORG", "NAME", "POLICY", "default", "default", "manual"]
    assert json.loads(cli("policy", "get", "default", "-o", "json").stdout)["policy"] == "manual"
    assert json.loads(cli("policy", "get", "-o", "json").stdout)["total"] == 1
    assert cli("policy", "set", "nobody", "none").returncode == 3
    assert cli("policy", "set", "default", "sometimes").returncode == 2
