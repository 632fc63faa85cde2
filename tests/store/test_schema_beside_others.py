"""`db init` beside others: it holds up nobody for long, names who holds it up, and works under other roles or says
which one it needs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from skyctl.host.postgres import EmbeddedPostgres
from skyctl.operations.admin import schema
from tests.conftest import Cli, Process, make_context
from tests.support.helpers import PATIENCE_SECONDS, add_worker, eventually

PANEL = (Path(__file__).parents[1] / "support/panel.sql").read_text()
LACKS = "ALTER TABLE container_workers DROP COLUMN rivals; DELETE FROM skyctl_schema WHERE version > 7"
WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'skyctl' "
    "AND wait_event_type = 'Lock'"
)
READS = "SELECT FROM container_workers"


@pytest.fixture
def reader(database_url: str) -> Iterator[psycopg.Connection]:
    """A transaction of somebody else, as of a backup."""
    with psycopg.connect(database_url, application_name="pg_dump") as opened:
        yield opened


@pytest.mark.parametrize("holds", [READS, "LOCK TABLE container_workers, worker_events IN SHARE UPDATE EXCLUSIVE MODE"])
def test_nothing_is_altered_where_nothing_is_missing(cli: Cli, reader: psycopg.Connection, holds: str) -> None:
    reader.execute(holds)
    assert cli("db", "init").returncode == 0


def test_who_writes_holds_it_up_as_little(cli: Cli, reader: psycopg.Connection) -> None:
    add_worker(reader, name="w")
    reader.execute("SELECT skyctl_lock_events()")
    reader.execute("DELETE FROM worker_events")
    assert cli("db", "init").returncode == 0


def test_who_holds_it_up_is_named_and_nobody_waits_behind_it(
    start: Callable[..., Process], reader: psycopg.Connection, connection: psycopg.Connection
) -> None:
    connection.execute(LACKS)
    reader.execute(READS)
    init = start("db", "init")
    others = 0
    while init.popen.poll() is None:
        connection.execute(READS)
        others += 1
    assert others > 1
    error = init.until("error: ")
    assert f"process {reader.info.backend_pid} of pg_dump, role postgres, in a transaction for" in error
    assert f"pg_terminate_backend({reader.info.backend_pid})" in init.until("hint: ")
    assert init.popen.wait() == 5


def test_it_goes_on_once_nobody_holds_it_up(
    start: Callable[..., Process], cli: Cli, reader: psycopg.Connection, connection: psycopg.Connection
) -> None:
    connection.execute(LACKS)
    reader.execute(READS)
    init = start("db", "init")
    eventually(lambda: connection.execute(WAITS).fetchone() != (0,))
    reader.rollback()
    assert init.popen.wait(PATIENCE_SECONDS) == 0
    assert cli("db", "check").returncode == 0


def test_what_was_lost_beside_columns_is_made_again(cli: Cli, connection: psycopg.Connection) -> None:
    connection.execute("DROP INDEX container_workers_name_idx; DROP TRIGGER skyctl_worker_removed ON container_workers")
    assert cli("db", "init").returncode == 0
    made = (
        "SELECT (SELECT count(*) FROM pg_class WHERE relname = %s), (SELECT count(*) FROM pg_trigger WHERE tgname = %s)"
    )
    assert connection.execute(made, ("container_workers_name_idx", "skyctl_worker_removed")).fetchone() == (1, 1)


@pytest.fixture
def roles(postgres: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """The role of the panel, and another one that may make tables."""
    names = f"panel_{uuid4().hex[:8]}", f"other_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.url, autocommit=True) as server:
        for name in names:
            server.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield names
        for name in names:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def panels(roles: tuple[str, str], make_database: Callable[[str], str]) -> str:
    """A database of the panel's, whose tables are those of its role."""
    url = make_database("template1")
    panel, other = map(sql.Identifier, roles)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}, {}").format(panel, other))
        connection.execute(sql.SQL("SET ROLE {}").format(panel))
        connection.execute(PANEL)
        everything = sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}")
        connection.execute(everything.format(other))
    return url


def as_role(url: str, role: str) -> str:
    return url.replace("postgres@", f"{role}@")


def panel_works(url: str, panel: str) -> None:
    """The panel removes a worker, and tells somebody something."""
    with psycopg.connect(as_role(url, panel), autocommit=True) as connection:
        add_worker(connection, name="w")
        connection.execute("DELETE FROM container_workers")
        assert connection.execute("SELECT kind, actor FROM worker_events").fetchall()[-1] == ("removed", "panel")
        connection.execute("INSERT INTO users (email, password_hash, name) VALUES ('a@example.com', '', 'a')")
        connection.execute("INSERT INTO notifications (user_id, type, message) SELECT id, 'x', 'x' FROM users")
        connection.execute("DELETE FROM users")


def test_the_panel_works_on_though_another_role_made_our_tables(roles: tuple[str, str], panels: str, cli: Cli) -> None:
    assert cli("db", "init", SKYCTL_DATABASE_URL=panels).returncode == 0
    panel_works(panels, roles[0])
    assert cli("db", "init", SKYCTL_DATABASE_URL=as_role(panels, roles[0])).returncode == 0


def test_a_database_that_another_role_made_before_is_mended(roles: tuple[str, str], panels: str, cli: Cli) -> None:
    assert cli("db", "init", SKYCTL_DATABASE_URL=panels).returncode == 0
    with psycopg.connect(panels, autocommit=True) as connection:
        connection.execute("ALTER TABLE worker_events OWNER TO postgres; ALTER TABLE notifications OWNER TO postgres")
    assert cli("db", "init", SKYCTL_DATABASE_URL=panels).returncode == 0
    panel_works(panels, roles[0])


def test_a_role_that_may_not_change_the_panels_tables_is_refused_by_name(
    roles: tuple[str, str], panels: str, cli: Cli
) -> None:
    panel, other = roles
    refused = cli("db", "init", SKYCTL_DATABASE_URL=as_role(panels, other))
    error, hint = refused.stderr.splitlines()
    assert (refused.returncode, f"belongs to the role {panel}, not to {other}" in error) == (4, True)
    assert f"GRANT {panel} TO {other}" in hint
    with psycopg.connect(panels, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT {} TO {}").format(*map(sql.Identifier, roles)))
    assert cli("db", "init", SKYCTL_DATABASE_URL=as_role(panels, other)).returncode == 0
    panel_works(panels, panel)


def test_whoever_may_only_use_the_tables_finds_nothing_to_do(roles: tuple[str, str], panels: str) -> None:
    """Where nothing is missing."""
    owner = make_context(panels)
    schema.initialize(owner)
    owner.db.close()
    with psycopg.connect(panels, autocommit=True) as connection:
        rights = sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(sql.Identifier(roles[1]))
        connection.execute(rights)
    user = make_context(as_role(panels, roles[1]))
    assert schema.initialize(user).complete
    user.db.close()


def test_who_may_only_write_the_panels_tables_adds_and_removes_workers(
    roles: tuple[str, str], panels: str, cli: Cli
) -> None:
    """What our triggers write besides is no matter of his rights, nor of where he looks for tables."""
    assert cli("db", "init", SKYCTL_DATABASE_URL=panels).returncode == 0
    with psycopg.connect(as_role(panels, roles[1]), autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        values = "(name, hostname, ip_address, auth_token_hash) VALUES ('w', 'w', '10.0.0.1', 'none')"
        connection.execute(f"INSERT INTO public.container_workers {values}")
        connection.execute("DELETE FROM public.container_workers")
    with psycopg.connect(panels, autocommit=True) as connection:
        assert connection.execute("SELECT sum(delta) FROM worker_counts").fetchone() == (0,)
        assert connection.execute("SELECT kind FROM worker_events").fetchall() == [("removed",)]
