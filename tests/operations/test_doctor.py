"""skyctl doctor: each thing that can be wrong is found, with its remedy, and keeps nothing else from being looked
at."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from skyctl import settings, wiring
from skyctl.domain.checks import CheckState
from skyctl.domain.engine import RestartPolicy
from skyctl.operations import admin
from skyctl.operations.admin import doctor_services
from skyctl.operations.agents import invitations
from skyctl.operations.shared.context import Context, DoctorInputs
from skyctl.store.tables import SCHEMA_VERSION
from skyctl.swarm import engine as swarm_engine
from tests.agent.peers import Answer, Engine, Manager, Request
from tests.conftest import Cli, Process
from tests.operations.fleets import fleet_of
from tests.support.false_clock import false_clock, needs_false_clock
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_worker, eventually

pytestmark = pytest.mark.in_process

Start = Callable[..., Process]
Serve = Callable[..., tuple[str, Process]]
NOWHERE = "postgresql://127.0.0.1:1/x"
MANAGER = {"NodeID": "n1", "LocalNodeState": "active", "ControlAvailable": True, "Error": ""}


class DockerEngine(Engine):
    """An engine at its socket that says what `info` holds; the SDK asks for the version first."""

    def decide(self, request: Request) -> Answer:
        if request.path == "/version":
            return Answer(200, {"ApiVersion": "1.47"})
        return Answer(200, self.info) if request.path.endswith("/info") else super().decide(request)


@dataclass
class Doctor:
    """Runs the command; the checks by name."""

    cli: Cli

    def __call__(self, code: int, **environment: str) -> dict[str, Any]:
        done = self.cli("doctor", "-o", "json", **environment)
        assert done.stderr == ""
        document = json.loads(done.stdout)
        assert document.keys() == {"healthy", "checks"}
        found = {check.pop("name"): check for check in document["checks"]}
        failed = [name for name, check in found.items() if check["state"] == "failed"]
        assert done.returncode == code, failed
        assert document["healthy"] is (code == 0) is (not failed)
        for check in found.values():
            assert check.keys() == {"state", "found", "remedy"}
            assert bool(check["remedy"]) is (check["state"] != "ok"), check
            assert "\n" not in f"{check['found']}{check['remedy']}"
        return found


@pytest.fixture
def doctor(cli: Cli) -> Doctor:
    """Where no API is, so that nobody else's is asked."""
    cli.environment["SKYCTL_API_URL"] = "http://127.0.0.1:9"
    return Doctor(cli)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DockerEngine]:
    with DockerEngine(tmp_path / "engine.sock", Swarm=MANAGER) as engine:
        yield engine


@pytest.fixture
def well(serve: Serve, start: Start, engine: DockerEngine, cli: Cli, connection: psycopg.Connection) -> Cli:
    """Everything that has to run does: the API, a monitor, a swarm's manager. This machine may be as busy as it
    likes."""
    cli.environment |= {f"WORKER_{dimension}_LIMIT": "100" for dimension in ("CPU", "MEMORY", "DISK")}
    url, _ = serve()
    start("monitor").until("action=leads")
    eventually(lambda: connection.execute("SELECT last_pass_at FROM monitor_leases").fetchone() not in (None, (None,)))
    cli.environment |= {"SKYCTL_API_URL": url, "DOCKER_HOST": f"unix://{engine.path}"}
    return cli


def bad(found: dict[str, Any]) -> list[str]:
    return [name for name, check in found.items() if check["state"] != "ok"]


@pytest.mark.parametrize(("workers", "state"), [(9_999, "ok"), (10_000, "warning")])
def test_a_large_fleet_on_postgresqls_own_settings(
    doctor: Doctor, connection: psycopg.Connection, workers: int, state: str
) -> None:
    connection.execute(
        "INSERT INTO container_workers (id, name, hostname, ip_address, auth_token_hash) "
        "SELECT gen_random_uuid(), 'w' || n, 'h', '10.0.0.1', 'x' || n FROM generate_series(1, %s) AS n",
        [workers],
    )
    database = psycopg.sql.Identifier(connection.info.dbname)
    connection.execute(psycopg.sql.SQL("ALTER DATABASE {} SET wal_compression = off").format(database))
    found = doctor(1)["database settings"]
    assert found["state"] == state
    if state == "warning":
        assert found["found"].startswith("at PostgreSQL's default for 10,000 workers: wal_compression; ")
        assert "ALTER SYSTEM SET wal_compression = 'on'; then SELECT pg_reload_conf()" in found["remedy"]


def test_where_all_is_well_nothing_is_said_against_it(well: Cli, connection: psycopg.Connection) -> None:
    add_worker(connection, status="active", auth_token_expires_at=datetime.now(UTC) + timedelta(days=31))
    add_worker(connection, status="pending")
    found = Doctor(well)(0)
    assert bad(found) == []
    assert "in term 1; last pass " in found["monitor"]["found"]
    assert found["docker"]["found"] == "Docker 28.0.1 manages its swarm"
    shown = well("doctor")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.endswith("\nAll is well.\n")
    assert len(shown.stdout.splitlines()) == len(found) + 3
    assert well("doctor", "-o", "yaml").stdout.startswith("healthy: true\nchecks:\n- name: settings\n  state: ok\n")


def test_without_the_database_the_rest_is_looked_at(well: Cli) -> None:
    found = Doctor(well)(1, SKYCTL_DATABASE_URL=NOWHERE)
    assert found["database"]["state"] == "failed"
    assert "does not answer" in found["database"]["found"]
    assert "SKYCTL_DATABASE_URL" in found["database"]["remedy"]
    assert (found["api"]["state"], found["docker"]["state"]) == ("ok", "ok")
    assert found["tokens"] == found["monitor"]
    assert found["monitor"]["found"] == "not known: the database does not answer"
    shown = well("doctor", SKYCTL_DATABASE_URL=NOWHERE)
    assert (shown.returncode, shown.stderr, shown.stdout.count("mend the database")) == (1, "", 1)
    assert "1 failed, 18 warnings" in shown.stdout


def test_a_database_that_cannot_keep_every_text(doctor: Doctor, make_database: Callable[..., str]) -> None:
    found = doctor(1, SKYCTL_DATABASE_URL=make_database("template0", "ENCODING 'SQL_ASCII' LOCALE 'C'"))
    assert found["database"]["found"].endswith("keeps text as SQL_ASCII, not as UTF8")
    assert "createdb --encoding=UTF8" in found["database"]["remedy"]


def test_a_database_url_that_cannot_be_read(doctor: Doctor) -> None:
    assert "starts with mysql://" in doctor(1, SKYCTL_DATABASE_URL="mysql://x/y")["database"]["found"]


def test_without_the_schema_the_rest_is_looked_at(doctor: Doctor, make_database: Callable[[str], str]) -> None:
    found = doctor(1, SKYCTL_DATABASE_URL=make_database("template1"))
    assert found["database"]["state"] == found["manager clock"]["state"] == "ok"
    assert found["schema"]["state"] == "failed"
    assert f"version none, {SCHEMA_VERSION} is needed; it lacks " in found["schema"]["found"]
    assert found["schema"]["remedy"] == "run `skyctl db init`"
    assert found["monitor"]["found"] == "not known: the schema is not complete"


def test_a_schema_that_is_newer_is_said(doctor: Doctor, connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO skyctl_schema (version) VALUES (99)")
    assert doctor(1)["schema"] == {
        "state": "warning",
        "found": f"version 99, newer than this skyctl's {SCHEMA_VERSION}",
        "remedy": "upgrade skyctl",
    }


def test_settings_that_cannot_be_read_are_an_error_as_ever(cli: Cli) -> None:
    done = cli("doctor", WORKER_HEARTBEAT_TIMEOUT="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: WORKER_HEARTBEAT_TIMEOUT: 'soon' is not ")


def test_where_nothing_ever_ran_each_program_is_named(doctor: Doctor, connection: psycopg.Connection) -> None:
    found = doctor(1)
    assert found["monitor"]["found"] == "no monitor has ever looked at the workers"
    assert "skyctl monitor" in found["monitor"]["remedy"]
    assert (found["serve"]["state"], found["serve"]["found"]) == ("warning", "none has ever run")
    assert found["api"]["found"] == "http://127.0.0.1:9 does not answer as it should: [Errno 111] Connection refused"
    assert "SKYCTL_API_URL" in found["api"]["remedy"]
    add_worker(connection)
    found = doctor(1)
    assert found["serve"]["state"] == "failed"
    assert "silence counts in full" in found["serve"]["remedy"]


def test_programs_that_ended_are_found(well: Cli, connection: psycopg.Connection) -> None:
    connection.execute("UPDATE monitor_leases SET last_pass_at = now() - interval '91 s'")
    assert Doctor(well)(1)["monitor"]["state"] == "failed"
    connection.execute("UPDATE monitor_leases SET last_pass_at = now() - interval '30 s'")
    assert Doctor(well)(0)["monitor"]["state"] == "ok"


def test_a_monitor_that_leads_no_more_is_not_well(doctor: Doctor, connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO monitor_leases (name, holder, expires_at, last_pass_at) VALUES "
        "('monitor', 'h:1:x', now() - interval '1 s', now() - interval '2 s')"
    )
    found = doctor(1)["monitor"]
    assert (found["state"], found["found"].endswith(" ago: none leads now")) == ("warning", True)
    assert "skyctl monitor" in found["remedy"]


def test_a_serve_that_ended_is_found(serve: Serve, doctor: Doctor, connection: psycopg.Connection) -> None:
    url, process = serve()
    eventually(lambda: connection.execute("SELECT 1 FROM serve_instances").fetchone())
    process.stop()
    connection.execute("UPDATE serve_instances SET last_seen_at = now() - interval '3 hours'")
    found = doctor(1, SKYCTL_API_URL=url)
    assert (found["serve"]["state"], found["serve"]["found"]) == ("failed", "last sign of life 3h ago")
    assert "silence does not count" in found["serve"]["remedy"]
    assert found["api"]["state"] == "failed"
    ahead = "now() + interval '2 hours'"
    connection.execute(f"UPDATE serve_instances SET last_seen_at = {ahead}")
    connection.execute(
        "INSERT INTO monitor_leases (name, holder, expires_at, last_pass_at) VALUES "
        f"('monitor', 'h:1:x', {ahead}, {ahead})"
    )
    found = doctor(1, SKYCTL_API_URL=url)
    for name in ("serve", "monitor"):
        assert found[name]["state"] == "failed"
        assert "ahead: the database's clock was set back" in found[name]["found"]


def test_another_server_at_the_address_is_not_taken_for_ours(doctor: Doctor) -> None:
    with Manager() as other:
        found = doctor(1, SKYCTL_API_URL=other.url)
        assert found["api"]["found"].endswith("something else answers there, not `skyctl serve`")


def test_the_serve_of_another_cluster_is_not_taken_for_ours(
    serve: Serve, doctor: Doctor, make_database: Callable[[str], str]
) -> None:
    other = make_database("template1")
    assert doctor.cli("db", "init", SKYCTL_DATABASE_URL=other).returncode == 0
    theirs, _ = serve(SKYCTL_DATABASE_URL=other)
    ours, _ = serve()
    assert doctor(1, SKYCTL_API_URL=ours)["api"]["state"] == "ok"
    found = doctor(1, SKYCTL_API_URL=theirs)["api"]
    assert (found["state"], found["found"]) == (
        "failed",
        f"{theirs} serves another database: it is the API of another cluster",
    )
    assert "SKYCTL_API_URL" in found["remedy"]
    assert "SKYCTL_DATABASE_URL" in found["remedy"]
    assert doctor(1, SKYCTL_API_URL=theirs, SKYCTL_DATABASE_URL=other)["api"]["state"] == "ok"


class OlderServe(Manager):
    """Answers as a `serve` did that does not say which installation it is."""

    def decide(self, request: Request) -> Answer:
        return Answer(200, {"status": "ok"} if request.path == "/healthz" else {"status": "ready", "schemaVersion": 5})


class UnreadyServe(Manager):
    """Answers as a `serve` does whose database is away."""

    def decide(self, request: Request) -> Answer:
        return Answer(200, {"status": "ok"}) if request.path == "/healthz" else Answer(503, {"success": False})


class ServeBehindAProxy(Manager):
    """Answers as a proxy does that passes on /healthz alone."""

    def decide(self, request: Request) -> Answer:
        return Answer(200, {"status": "ok"}) if request.path == "/healthz" else Answer(404, {})


class WordlessServe(Manager):
    """Answers /readyz with 200, and with something else than an object."""

    def decide(self, request: Request) -> Answer:
        return Answer(200, {"status": "ok"}) if request.path == "/healthz" else Answer(200, "ready")


@pytest.mark.parametrize(
    ("serve_class", "words"),
    [
        (OlderServe, "too old to say which"),
        (UnreadyServe, ", but it is not ready: /readyz answers 503 Service Unavailable"),
        (ServeBehindAProxy, ", but /readyz answers 404 Not Found"),
        (WordlessServe, ", but /readyz does not say that it is ready"),
    ],
)
def test_a_serve_that_does_not_say_what_it_serves_is_worth_a_look(
    doctor: Doctor, serve_class: type[Manager], words: str
) -> None:
    with serve_class() as other:
        found = doctor(1, SKYCTL_API_URL=other.url)["api"]
    assert found["state"] == "warning"
    assert words in found["found"]


def test_tokens_that_end_are_named(doctor: Doctor, connection: psycopg.Connection) -> None:
    now = datetime.now(UTC)
    add_worker(connection, name="soon", auth_token_key="w-1", auth_token_expires_at=now + timedelta(days=29, hours=1))
    found = doctor(1)["tokens"]
    assert (found["state"], found["found"]) == ("warning", "expire soon: soon (in 29d)")
    for number in range(7):
        add_worker(
            connection, name=f"gone-{number}", auth_token_key="w-1", auth_token_expires_at=now - timedelta(days=2)
        )
    found = doctor(1)["tokens"]
    assert found["state"] == "failed"
    assert found["found"].startswith("expired: gone-0 (2d ago), gone-1 (2d ago), ")
    assert found["found"].endswith("gone-4 (2d ago) and 2 more; expire soon: soon (in 29d)")
    assert "skyctl workers install-script" in found["remedy"]


def test_workers_in_trouble_are_named_with_the_next_commands(doctor: Doctor, connection: psycopg.Connection) -> None:
    hour_ago = datetime.now(UTC) - timedelta(minutes=61)
    add_worker(connection, name="off", status="offline", last_heartbeat_at=hour_ago)
    add_worker(connection, name="full", status="unhealthy", last_heartbeat_at=hour_ago)
    add_worker(connection, name="never", created_at=hour_ago)
    found = doctor(1)
    for check, name, said in (
        ("workers offline", "off", "off (heard 1h ago)"),
        ("workers unhealthy", "full", "full (heard 1h ago)"),
        ("workers pending", "never", "never (invited 1h ago)"),
    ):
        assert (found[check]["state"], found[check]["found"]) == ("warning", said)
        for command in (
            "systemctl status skypanel-worker",
            "journalctl -u skypanel-worker",
            f"skyctl workers why {name}",
        ):
            assert command in found[check]["remedy"]


def test_names_do_nothing_to_a_terminal(cli: Cli, connection: psycopg.Connection) -> None:
    add_worker(connection, name="bad\x1b[2Jname", status="offline")
    assert "bad\\x1b[2Jname (never heard)" in cli("doctor", SKYCTL_API_URL="http://127.0.0.1:9").stdout


def test_a_mass_failure_that_stands_is_told(doctor: Doctor, connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO mass_failures (silent, schedulable, lifted_at) VALUES (9, 9, now())")
    assert doctor(1)["mass failures"]["state"] == "ok"
    connection.execute(
        "INSERT INTO mass_failures (region, silent, schedulable, detected_at) "
        "VALUES ('eu', 6, 10, now() - interval '2 min')"
    )
    found = doctor(1)["mass failures"]
    assert found["state"] == "warning"
    assert found["found"] == "6 workers of eu failed 2m ago: automatic moves are held"


def test_channels_that_take_no_alert_are_named(doctor: Doctor, connection: psycopg.Connection) -> None:
    for number in range(4):
        connection.execute("INSERT INTO worker_alerts (kind, title, message) VALUES ('t', 't', %s)", (str(number),))
    columns = "alert_id, channel, delivered_at, given_up_at, error"
    new = f"INSERT INTO alert_deliveries ({columns}) VALUES (%s, 'slack:1', {{}}, {{}}, %s)"
    connection.execute(new.format("NULL", "now() - interval '2 hours'"), (1, "long past"))
    connection.execute(new.format("now() - interval '1 hour'", "NULL"), (2, None))
    assert doctor(1)["alerts"]["state"] == "ok", "one arrived since"
    connection.execute(new.format("NULL", "now()"), (3, "gone"))
    connection.execute(new.format("NULL", "NULL"), (4, "no route"))
    found = doctor(1)["alerts"]
    assert (found["state"], found["found"]) == ("warning", "slack:1: 1 failing, 1 given up: no route")


@pytest.mark.parametrize(
    ("swarm", "said"),
    [
        ({"LocalNodeState": "inactive", "ControlAvailable": False}, "Docker 28.0.1 is in no swarm"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "is a worker of its swarm, not a manager"),
        ({"LocalNodeState": "locked", "ControlAvailable": False}, "the swarm is not well: it is locked"),
        (MANAGER | {"Error": "no leader"}, "the swarm is not well: no leader"),
    ],
)
def test_an_engine_that_manages_no_swarm_fails(
    doctor: Doctor, engine: DockerEngine, swarm: dict[str, Any], said: str
) -> None:
    engine.info["Swarm"] = swarm
    found = doctor(1, DOCKER_HOST=f"unix://{engine.path}")["docker"]
    assert found["state"] == "failed"
    assert said in found["found"]


def test_an_engine_that_was_set_and_does_not_answer_fails(doctor: Doctor) -> None:
    found = doctor(1, DOCKER_HOST="tcp://127.0.0.1:9")["docker"]
    assert found["state"] == "failed"
    assert "Connection refused" in found["found"]


def test_no_engine_at_all_is_worth_a_warning(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within this process, since this machine may have an engine where the local one is looked for."""
    monkeypatch.setattr(swarm_engine, "DEFAULT_HOST", f"unix://{tmp_path}/no-engine.sock")
    loaded = settings.load(environment=environment | {"SKYCTL_API_URL": "http://127.0.0.1:9"})
    [docker] = [check for check in admin.doctor.examine(wiring.doctor_inputs(loaded)) if check.name == "docker"]
    assert (docker.state, docker.remedy) == ("warning", "set DOCKER_HOST to a manager of the swarm")


def test_a_secret_that_others_can_read_fails(doctor: Doctor, tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = doctor(1, SKYCTL_JWT_SECRET="")
    assert found["data folder"]["found"] == f"{data} will be made when it is needed"
    assert not data.exists(), "a doctor changes nothing"
    data.mkdir()
    kept = data / "jwt-secret"
    kept.write_text("a-secret-that-an-installation-made-for-itself")
    kept.chmod(0o640)
    assert doctor(1, SKYCTL_JWT_SECRET="")["signing secret"] == {
        "state": "failed",
        "found": f"{kept} has mode 0640: others can sign tokens with it",
        "remedy": f"chmod 600 {kept}",
    }
    kept.chmod(0o600)
    assert doctor(1, SKYCTL_JWT_SECRET="")["signing secret"]["state"] == "ok"


def test_a_data_folder_that_cannot_be_used_fails(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    found = doctor(1, SKYCTL_JWT_SECRET="")
    assert found["data folder"]["state"] == "failed"
    assert "Not a directory" in found["data folder"]["found"]
    assert found["database"]["state"] == "ok"
    assert doctor(1)["data folder"]["found"] == "not needed: database and signing secret were set"


@needs_false_clock
@pytest.mark.parametrize(("hours", "said"), [(1, "1h ahead"), (-1, "1h behind")])
def test_a_manager_whose_clock_is_wrong(doctor: Doctor, tmp_path: Path, hours: int, said: str) -> None:
    found = doctor(1, **false_clock(tmp_path, hours=hours))["manager clock"]
    assert (found["state"], found["found"]) == ("failed", f"this machine's is {said}, against the database's")
    found = doctor(1, **false_clock(tmp_path, hours=hours * 5 / 3600))["manager clock"]
    assert found["state"] == "warning"
    assert "timedatectl" in found["remedy"]


@needs_false_clock
@pytest.mark.parametrize(("hours", "said"), [(1, "1h ahead"), (-1, "1h behind")])
def test_an_agent_whose_clock_is_wrong_is_named_and_nothing_else_changes(
    well: Cli,
    context: Context,
    connection: psycopg.Connection,
    tmp_path: Path,
    hours: int,
    said: str,
    launch_agent: Callable[..., Process],
) -> None:
    wrong, right = invitations.invite(context, TESTS, "wrong"), invitations.invite(context, TESTS, "right")
    launch_agent(wrong, well, false_clock(tmp_path, hours=hours))
    launch_agent(right, well, {})

    def beats() -> bool:
        rows = connection.execute(
            "SELECT status = 'active' AND abs(extract(epoch FROM now() - last_heartbeat_at)) < 30 "
            "FROM container_workers"
        ).fetchall()
        return rows == [(True,), (True,)]

    eventually(beats)
    found = Doctor(well)(0)
    assert bad(found) == ["worker clocks", "workers' nodes"], "neither host is in a swarm"
    assert found["worker clocks"]["state"] == "warning"
    assert found["worker clocks"]["found"] == f"wrong ({said}), against the database's"
    assert "timedatectl" in found["worker clocks"]["remedy"]
    offsets = connection.execute(
        "SELECT name, (metadata ->> 'clockOffsetSeconds')::float FROM container_workers ORDER BY name DESC"
    ).fetchall()
    assert offsets == [
        ("wrong", pytest.approx(hours * 3600, abs=PATIENCE_SECONDS)),
        ("right", pytest.approx(0, abs=PATIENCE_SECONDS)),
    ]
    changes = connection.execute("SELECT count(*) FROM worker_events WHERE kind = 'status_changed'").fetchone()
    assert changes == (2,), "from pending to active, each once"


@pytest.fixture
def launch_agent(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts the agent of an invitation, to be killed at the end."""
    started = []

    def launch(invitation: Any, cli: Cli, environment: dict[str, str]) -> Process:
        config = tmp_path / f"{invitation.worker_id}.json"
        config.write_text(
            json.dumps(
                {
                    "apiUrl": cli.environment["SKYCTL_API_URL"],
                    "authToken": invitation.token,
                    "workerId": str(invitation.worker_id),
                    "dockerSocket": str(tmp_path / "none"),
                }
            )
        )
        config.chmod(0o600)
        started.append(Process([sys.executable, "-m", "skyagent", "--config", str(config)], environment))
        return started[-1]

    yield launch
    for process in started:
        process.popen.kill()
        process.popen.wait()
        assert process.popen.stderr
        process.popen.stderr.close()


def test_what_the_panel_wrote_as_an_offset_is_no_trouble(doctor: Doctor, connection: psycopg.Connection) -> None:
    for value in ('"far"', "null", "1e400", "[40]", "29.9"):
        add_worker(connection, metadata=f'{{"clockOffsetSeconds": {value}}}')
    assert doctor(1)["worker clocks"]["state"] == "ok"


def test_services_that_keep_ending_or_are_not_started_again_are_named(
    database_url: str, connection: psycopg.Connection
) -> None:
    with fleet_of(database_url, connection, "w1") as fleet:
        fleet.deploy("fine", "bad", to="w1")
        connection.execute(
            "UPDATE container_services SET ending_reason = 'its container ended 3 times' WHERE name = 'bad'"
        )
        inputs = cast(
            DoctorInputs, SimpleNamespace(database=lambda: nullcontext(fleet.context.db), engine=fleet.context.engine)
        )
        check = doctor_services.examine(inputs)
        assert (check.state, check.found) == (CheckState.WARNING, "bad keeps ending: its container ended 3 times")
        connection.execute("UPDATE container_services SET ending_reason = NULL")
        assert doctor_services.examine(inputs).state is CheckState.OK
        fleet.engine.policies = {"app:1": RestartPolicy("on-failure", 3)}
        found = doctor_services.examine(inputs).found
        assert found.startswith(
            "bad: it is not started again once its container ends with exit code 0, or once it was "
        )
        assert "started again 3 times in its whole life; fine: it is not" in found
