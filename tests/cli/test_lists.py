"""The lists: all rows for programs and a page for people; filters that add up, orders, and watching."""

import json
import signal

import psycopg
import pytest

from skyctl.operations.admin import drains, migrations
from tests.cli.test_top import Terminal
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS, add_worker
from tests.support.in_process import InProcess

MORE_THAN_A_PAGE = 103


def names(done: object) -> list[str]:
    return str(getattr(done, "stdout", "")).split()


def test_programs_get_every_worker_and_people_a_page(typed: InProcess, connection: psycopg.Connection) -> None:
    for number in range(MORE_THAN_A_PAGE):
        add_worker(connection, name=f"w{number:03}")
    assert len(names(typed("workers", "list", "-o", "name"))) == MORE_THAN_A_PAGE
    for output in ("json", "yaml"):
        assert typed("workers", "list", "-o", output).stdout.count("swarmNodeClaim") == MORE_THAN_A_PAGE
    assert len(names(typed("workers", "list", "-n", "2", "--offset", "1", "-o", "name"))) == 2
    *_, total = typed("workers", "list").stdout.splitlines()
    assert total == f"1 to 100 of {MORE_THAN_A_PAGE} workers; more: --offset 100"
    assert typed("workers", "list", "-o", "wide").stdout.splitlines()[-1] == total


def test_a_page_goes_on_after_a_worker_or_what_the_page_before_calls_next(
    typed: InProcess, connection: psycopg.Connection
) -> None:
    for name in ("a", "b", "c", "d"):
        add_worker(connection, name=name)
    first = json.loads(typed("workers", "list", "-n", "2", "-o", "json").stdout)
    assert (first["total"], first["totalIsLeast"]) == (4, False)
    assert names(typed("workers", "list", "--after", first["next"], "-o", "name")) == ["c", "d"]
    shown = typed("workers", "list", "--after", "a", "-n", "2")
    assert shown.stdout.splitlines()[-1] == "2 workers"
    assert "note: those after them, as fast wherever they are: --after c:" in shown.stderr
    gone = typed("workers", "list", "--after", "gone")
    assert (gone.returncode, "there is no worker 'gone'" in gone.stderr) == (3, True)


def test_programs_get_every_service_migration_event_and_alert(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("a", to="w1")
    drains.drain(trio.context, [trio.ids["w1"]], TESTS)
    trio.settle()
    copies = f"generate_series(1, {MORE_THAN_A_PAGE})"
    for table, columns, changed in (
        ("container_services", "name, organization_id, status, slug", "name, organization_id, 'running', slug || n"),
        ("container_migrations", "swarm_service_name, cause, state", "'x' || n, cause, 'completed'"),
        ("worker_events", "kind, actor", "'removed', 'tests'"),
        ("worker_alerts", "kind, title, message", "'drained', 't', 'm'"),
    ):
        one = f"(SELECT * FROM {table} LIMIT 1) t RIGHT JOIN {copies} n ON true"
        trio.connection.execute(f"INSERT INTO {table} ({columns}) SELECT {changed} FROM {one}")
    for command in ("services list", "migrations list", "events", "alerts list"):
        assert len(names(typed(*command.split(), "-o", "name"))) >= MORE_THAN_A_PAGE, command
        assert len(typed(*command.split()).stdout.splitlines()) < MORE_THAN_A_PAGE, command


@pytest.fixture
def fleet(connection: psycopg.Connection) -> None:
    for name, status, region, pool, cpu in (
        ("a", "active", "eu", "gpu", 10),
        ("b", "offline", "eu", None, 90),
        ("c", "pending", "us", "gpu", 50),
        ("d", "active", None, None, 20),
    ):
        labels = {key: value for key, value in (("region", region), ("pool", pool)) if value}
        load = json.dumps({"cpuPercent": cpu, "memoryPercent": 100 - cpu})
        add_worker(connection, name=name, status=status, metadata=json.dumps(labels), current_load=load)


@pytest.mark.usefixtures("fleet")
def test_filters_add_up_and_each_takes_several(typed: InProcess) -> None:
    for options, found in {
        "--status active --status offline": "a b d",
        "--status active,offline": "a b d",
        "--status active,offline --status pending": "a b c d",
        "--region eu --region us": "a b c",
        "--region eu,us --pool gpu": "a c",
        "--region= ": "d",
        "--region ,us": "c d",
        "--pool gpu --status active": "a",
        "--sort-by cpu": "b c d a",
        "--sort-by memory": "a d c b",
        "--sort-by status": "a d b c",
    }.items():
        assert names(typed("workers", "list", "-o", "name", *options.split())) == found.split(), options
    wrong = typed("workers", "list", "--status", "active,busy")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "error: --status: 'busy' is not accepted\n"
        "hint: --status is one of pending, active, unhealthy, draining, offline\n"
    )


def test_services_and_migrations_are_filtered_and_sorted(typed: InProcess, trio: Fleet) -> None:
    trio.deploy("a", "c", to="w1")
    trio.deploy("b", to="w2")
    trio.connection.execute("UPDATE container_services SET down_reason = 'gone' WHERE name = 'c'")
    for options, found in {
        "--worker w1,w2": "a b c",
        "--worker w1 --worker w3": "a c",
        "--status running,failed": "a b",
        "--status down": "c",
        "--sort-by worker": "a c b",
        "--sort-by status": "a b c",
        "--org default,default": "a b c",
    }.items():
        assert names(typed("services", "list", "-o", "name", *options.split())) == found.split(), options
    assert typed("services", "list", "--org", "default,nobody").returncode == 3
    migrations.pause(trio.context, TESTS, None, None)
    drains.drain(trio.context, [trio.ids["w1"], trio.ids["w2"]], TESTS)
    trio.settle()

    def moved(*options: str) -> list[str]:
        document = json.loads(typed("migrations", "list", "-o", "json", *options).stdout)
        return [migration["serviceName"] for migration in document["migrations"]]

    assert moved("--sort-by", "service") == ["a", "b", "c"]
    assert sorted(moved("--worker", "w1")) == ["a", "c"]
    assert sorted(moved("--worker", "w1,w2", "--state", "queued,held")) == ["a", "b", "c"]
    assert moved("--state", "held") == []


def test_watching_draws_again_what_changes(
    typed: InProcess, environment: dict[str, str], connection: psycopg.Connection
) -> None:
    for options in ([], ["-o", "json"]):
        refused = typed("workers", "list", "--watch", *options)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "--watch draws tables on a terminal" in refused.stderr
    add_worker(connection, name="first", status="active")
    terminal = Terminal(environment, "workers", "list", "--watch", "--status", "active")
    try:
        terminal.until("first", "1 worker")
        add_worker(connection, name="second", status="active")
        terminal.until("second", "2 workers")
        terminal.popen.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    finally:
        terminal.close()
