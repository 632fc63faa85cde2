"""The schema: complete, repeatable, at home in an empty database and in the panel's."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
import sqlalchemy as sa

from skyctl.domain.errors import UnfitDatabase
from skyctl.domain.states import WorkerStatus
from skyctl.operations.admin import schema, workers
from skyctl.operations.agents import invitations
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from skyctl.store import tables
from tests.conftest import Cli, make_context
from tests.support.helpers import TESTS, add_worker, look, registration

pytestmark = pytest.mark.in_process

PANEL = (Path(__file__).parents[1] / "support/panel.sql").read_text()


@pytest.fixture
def panel_url(make_database: Callable[[str], str]) -> str:
    """A database of the panel, with a row that the panel wrote."""
    url = make_database("template1")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(PANEL)
        add_worker(
            connection, name="panel-worker", capacity=json.dumps({"cpu_cores": 4, "memory_mb": 8192, "disk_gb": 100})
        )
    return url


def columns_of(connection: psycopg.Connection, table: str) -> dict[str, tuple[object, ...]]:
    rows = connection.execute(
        "SELECT column_name, data_type, character_maximum_length, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_name = %s AND table_schema = 'public'",
        (table,),
    )
    return {str(row[0]): row[1:] for row in rows}


BUT_THE_LAST: LiteralString = "DELETE FROM skyctl_schema WHERE version < (SELECT max(version) FROM skyctl_schema)"


def dump(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """Everything that the catalog says of tables, columns, constraints, indexes and triggers."""
    return connection.execute("""
        SELECT table_name, column_name, data_type, column_default
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid) FROM pg_constraint
        UNION ALL SELECT tablename, indexname, '', indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT tgrelid::regclass::text, tgname, '', pg_get_triggerdef(oid) FROM pg_trigger
        ORDER BY 1, 2, 3, 4
    """).fetchall()


def test_tables_py_is_what_postgresql_reflects(context: Context) -> None:
    with context.db.transaction() as tx:
        reflected = sa.MetaData()
        reflected.reflect(tx)
    described = {name: {c.name: str(c.type) for c in table.c} for name, table in tables.metadata.tables.items()}
    found = {name: {c.name: str(c.type) for c in table.c} for name, table in reflected.tables.items()}
    assert found == described


def test_init_again_changes_nothing(context: Context, connection: psycopg.Connection) -> None:
    before, known = dump(connection), schema.check(context).installation_id
    assert schema.initialize(context).complete
    assert schema.initialize(context).complete
    assert dump(connection) == before
    assert known is not None
    assert schema.check(context).installation_id == known


def test_each_database_is_an_installation_of_its_own(context: Context, panel_url: str) -> None:
    other = make_context(panel_url)
    first = schema.initialize(other).installation_id
    assert first not in (None, schema.check(context).installation_id)
    assert schema.initialize(other).installation_id == first
    other.db.close()


def test_an_older_database_gets_its_id_once(context: Context, connection: psycopg.Connection) -> None:
    connection.execute("DROP TABLE skyctl_installation")
    connection.execute(f"{BUT_THE_LAST}; UPDATE skyctl_schema SET version = 5")
    assert schema.check(context).missing == ["skyctl_installation"]
    made = schema.initialize(context)
    assert made.complete
    assert made.installation_id is not None
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO skyctl_installation DEFAULT VALUES")


def test_init_lifts_the_limits_of_an_older_database(context: Context, connection: psycopg.Connection) -> None:
    before = dump(connection)
    connection.execute(f"""
        ALTER TABLE worker_events ALTER COLUMN actor TYPE varchar(255);
        ALTER TABLE mass_failures ALTER COLUMN region TYPE varchar(255), ALTER COLUMN lifted_by TYPE varchar(255);
        {BUT_THE_LAST}; UPDATE skyctl_schema SET version = 2;
    """)
    assert schema.check(context).pending_upgrade
    assert schema.initialize(context).complete
    assert dump(connection) == before


def test_two_inits_at_once_both_succeed(make_database: Callable[[str], str]) -> None:
    context = make_context(make_database("template1"))
    states: list[bool] = []
    threads = [threading.Thread(target=lambda: states.append(schema.initialize(context).complete)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context.db.close()
    assert states == [True] * 3


def test_init_takes_nothing_from_the_panel(panel_url: str) -> None:
    context = make_context(panel_url)
    with psycopg.connect(panel_url, autocommit=True) as connection:
        before = dump(connection)
        users_before = columns_of(connection, "users")
        assert schema.check(context).missing
        assert schema.initialize(context).complete
        after = dump(connection)
        assert set(before) <= set(after)
        assert columns_of(connection, "users") == users_before
        schema.initialize(context)
        assert dump(connection) == after
    context.db.close()


def test_everything_works_in_the_panels_database(panel_url: str) -> None:
    context = make_context(panel_url)
    schema.initialize(context)
    invitation = invitations.invite(context, TESTS)
    register(context, invitation.token, registration("new"))
    names = {worker.name: worker for worker in workers.list_workers(context).workers}
    assert set(names) == {"panel-worker", "worker-new"}
    assert names["panel-worker"].capacity.memory_mb == 8192
    look(context)
    assert workers.stats(context).by_status == {WorkerStatus.PENDING: 2}
    context.db.close()


def test_a_worker_that_the_panel_removes_is_an_event_too(panel_url: str) -> None:
    context = make_context(panel_url)
    schema.initialize(context)
    invitation = invitations.invite(context, TESTS)
    with psycopg.connect(panel_url, autocommit=True) as connection:
        connection.execute("DELETE FROM container_workers WHERE id = %s", (invitation.worker_id,))
        event = connection.execute("SELECT kind, actor FROM worker_events ORDER BY seq DESC LIMIT 1").fetchone()
    context.db.close()
    assert event == ("removed", "panel")


def test_check_names_what_is_missing(make_database: Callable[[str], str], cli: Cli) -> None:
    url = make_database("template1")
    before = cli("db", "check", SKYCTL_DATABASE_URL=url)
    assert before.returncode == 1
    assert "container_workers" in before.stdout
    assert "skyctl db init" in before.stderr
    made = cli("db", "init", "-o", "json", SKYCTL_DATABASE_URL=url)
    assert made.returncode == 0
    assert json.loads(made.stdout)["complete"] is True
    assert cli("db", "check", SKYCTL_DATABASE_URL=url).returncode == 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE container_workers DROP COLUMN stopped_at")
        connection.execute("DELETE FROM skyctl_schema")
    after = cli("db", "check", "-o", "json", SKYCTL_DATABASE_URL=url)
    assert after.returncode == 1
    found = json.loads(after.stdout)
    assert found["missing"] == ["container_workers.stopped_at"]
    assert found["pendingUpgrade"] is True
    assert cli("db", "init", SKYCTL_DATABASE_URL=url).returncode == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://user:geheim@localhost/x", "mysql://"),
        ("postgresql://user:geheim@127.0.0.1:1/x", "refused"),
        ("postgresql://user:geheim@/x?host=/nowhere", "does not answer"),
        ("postgresql://user:geheim@localhost:notaport/x", "cannot be read"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_line(cli: Cli, url: str, words: str) -> None:
    result = cli("workers", "list", SKYCTL_DATABASE_URL=url)
    assert result.returncode == 5
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert hint.startswith("hint: ")
    assert "geheim" not in result.stderr
    assert result.stdout == ""


def test_a_missing_table_is_one_line(make_database: Callable[[str], str], cli: Cli) -> None:
    result = cli("workers", "list", SKYCTL_DATABASE_URL=make_database("template1"))
    assert result.returncode == 5
    assert result.stderr.splitlines()[1] == "hint: run `skyctl db init` against this database"
    assert len(result.stderr.splitlines()) == 2


def test_a_database_that_does_not_exist_is_one_line(database_url: str, cli: Cli) -> None:
    name = database_url.split("?")[0].rsplit("/", 1)[1]
    result = cli("db", "check", SKYCTL_DATABASE_URL=database_url.replace(name, "no_such_database"))
    assert result.returncode == 5
    assert "no_such_database" in result.stderr.splitlines()[0]


def test_options_that_the_driver_does_not_know(cli: Cli, database_url: str) -> None:
    result = cli("workers", "list", SKYCTL_DATABASE_URL=f"{database_url}&foo=bar")
    assert (result.returncode, "Traceback" in result.stderr) == (5, False)
    assert "foo" in result.stderr


def test_options_of_the_url_stand(cli: Cli, connection: psycopg.Connection, database_url: str) -> None:
    connection.execute("CREATE SCHEMA elsewhere")
    there = cli("db", "check", SKYCTL_DATABASE_URL=f"{database_url}&options=-csearch_path%3Delsewhere")
    assert (there.returncode, "container_workers" in there.stdout) == (1, True)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_keep_every_text_is_refused(make_database: Callable[..., str], encoding: str) -> None:
    """By name, before anything is made in it; the database that the hint makes is taken."""
    url = make_database("template0", f"ENCODING '{encoding}' LOCALE 'C'")
    context = make_context(url)
    for use in (schema.initialize, schema.check):
        with pytest.raises(UnfitDatabase, match=f"keeps text as {encoding}, not as UTF8") as refused:
            use(context)
    context.db.close()
    with psycopg.connect(url) as connection:
        made = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert made.fetchone() == (0,)
    [(encoding, locale, template)] = re.findall(
        r"createdb --encoding=(\S+) --locale=(\S+) --template=(\S+) ", refused.value.hint
    )
    remedied = make_context(make_database(template, f"ENCODING '{encoding}' LOCALE '{locale}'"))
    assert schema.initialize(remedied).complete
    remedied.db.close()


def test_whoever_starts_in_such_a_database_says_it_and_ends(make_database: Callable[..., str], cli: Cli) -> None:
    url = make_database("template0", "ENCODING 'LATIN1' LOCALE 'C'")
    for command in ("db init", "serve --port 0", "monitor"):
        result = cli(*command.split(), SKYCTL_DATABASE_URL=url)
        assert result.returncode == 5, command
        error, hint = result.stderr.splitlines()
        assert error.startswith("error: ")
        assert error.endswith("keeps text as LATIN1, not as UTF8")
        assert "createdb --encoding=UTF8" in hint
