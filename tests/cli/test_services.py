"""`skyctl services` as a person types it, where no engine is needed; with one it is tried in the lab."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml

from skyctl.domain.cluster import Capacity
from skyctl.domain.engine import Port
from skyctl.operations.admin import adoption, services
from tests.conftest import Cli, clean_environment
from tests.support.fleet import Fleet
from tests.support.helpers import PATIENCE_SECONDS

pytestmark = pytest.mark.in_process

AWAY = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def add_organization(connection: psycopg.Connection, slug: str) -> None:
    connection.execute(
        "INSERT INTO organizations (id, name, slug) VALUES (gen_random_uuid(), %s, %s)", (slug.title(), slug)
    )


def test_list_in_every_format(cli: Cli, trio: Fleet) -> None:
    trio.deploy("web", "api", to="w1", ports=[Port(8080, 80)])
    trio.deploy("queue", to="w2")
    heading, api, queue, web, total = cli("services", "list").stdout.splitlines()
    assert heading.split() == ["NAME", "ORG", "STATUS", "WORKER", "IMAGE", "CHANGED"]
    assert [line.split()[:5] for line in (api, queue, web)] == [
        [name, "default", "running", worker, "app:1"]
        for name, worker in (("api", "w1"), ("queue", "w2"), ("web", "w1"))
    ]
    assert total == "3 services"
    assert "1 core, 512 MiB memory, 1.0 GiB disk" in cli("services", "list", "-o", "wide").stdout
    document = json.loads(cli("services", "list", "-o", "json").stdout)
    assert (document["total"], len(document["services"])) == (3, 3)
    again = yaml.safe_load(cli("services", "list", "-o", "yaml").stdout)
    assert again == document | {"readAt": again["readAt"]}
    assert cli("services", "list", "--worker", "w1", "-o", "name").stdout == "api\nweb\n"
    page = cli("services", "list", "--limit", "1", "--offset", "1").stdout
    assert page.splitlines()[-1] == "2 to 2 of 3 services; more: --offset 2"
    add_organization(trio.connection, "acme")
    assert cli("services", "list", "--org", "acme").stdout == "No services.\n"
    assert cli("services", "list", "--org", "nobody").returncode == 3


def test_show_tells_everything_but_the_values_of_variables(cli: Cli, trio: Fleet) -> None:
    trio.deploy(
        "web", to="w1", environment={"DB_URL": "SECRET"}, labels={"team": "x"}, command=["sleep", "5"], region=None
    )
    trio.fail("w1")
    trio.settle()
    shown = cli("services", "show", "web")
    assert shown.returncode == 0, shown.stderr
    facts = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert (facts["Variables"].strip(), facts["Labels"].strip(), facts["Command"].strip()) == (
        "DB_URL",
        "team=x",
        "sleep 5",
    )
    for words in ("DEPLOYMENT", "stopped", "FROM → TO", "w1 → w", "completed", "failure"):
        assert words in shown.stdout
    document = json.loads(cli("services", "show", "web", "-o", "json").stdout)
    assert [each["status"] for each in document["deployments"]] == ["running", "stopped"]
    assert [each["state"] for each in document["migrations"]] == ["completed"]
    assert document["limits"] == {"cpuCores": 1, "memoryMb": 512, "diskGb": 1}
    assert "SECRET" not in shown.stdout + json.dumps(document)
    assert json.loads(cli("services", "show", document["id"][:8], "-o", "json").stdout)["name"] == "web"


def test_show_tells_the_last_fifty_of_a_long_history(cli: Cli, trio: Fleet) -> None:
    trio.deploy("web", to="w1")
    trio.connection.execute(
        "INSERT INTO container_deployments (service_id, image_tag, status, created_at) "
        "SELECT id, 'app:' || n, 'stopped', now() - make_interval(days => n) "
        "FROM container_services, generate_series(1, 60) n"
    )
    trio.connection.execute(
        "INSERT INTO container_migrations (service_id, source_deployment_id, source_worker_id, state, created_at, "
        "finished_at) SELECT service_id, d.id, w.id, 'cancelled', d.created_at, d.created_at "
        "FROM container_deployments d, container_workers w WHERE d.status = 'stopped' AND w.name = 'w1'"
    )
    shown = json.loads(cli("services", "show", "web", "-o", "json").stdout)
    made = [deployment["createdAt"] for deployment in shown["deployments"]]
    assert len(made) == len(shown["migrations"]) == 50
    assert made == sorted(made, reverse=True)
    assert shown["deployments"][0]["status"] == "running"


def test_show_tells_the_engines_error(cli: Cli, trio: Fleet) -> None:
    trio.engine.absent.add(("*", "app:1"))
    trio.deploy("web", to="w1")
    shown = cli("services", "show", "web").stdout
    assert "No such image: app:1" in next(line for line in shown.splitlines() if line.startswith("Error"))
    assert "failed" in cli("services", "list").stdout


def test_names_that_others_wrote_cannot_steer_the_terminal(cli: Cli, trio: Fleet) -> None:
    trio.deploy("web", to="w1")
    trio.connection.execute(
        r"UPDATE container_services SET name = E'ev\x1b[31mil', resource_limits = '[]', engine_settings = '[1]'"
    )
    trio.connection.execute(
        r"UPDATE container_deployments SET deployment_logs = E'bad\x1b[2Jlog', image_tag = E'i\x1b[0m'"
    )
    for arguments in (["list"], ["list", "-o", "wide"], ["list", "-o", "name"], ["show", "web"]):
        done = cli("services", *arguments)
        assert done.returncode == 0, done.stderr
        assert "ev\\x1b[31mil" in done.stdout
        assert "\x1b" not in done.stdout


def test_completing_names_of_services(cli: Cli, trio: Fleet) -> None:
    trio.deploy("web", "api", to="w1")
    asked = {"_SKYCTL_COMPLETE": "complete_bash", "COMP_WORDS": "skyctl services show w", "COMP_CWORD": "3"}
    assert cli(**asked).stdout.split() == ["web"]
    away = cli(**asked, SKYCTL_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert (away.stdout.strip(), away.stderr) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "nobody"], 3, "there is no service 'nobody'"),
        (["remove", "nobody", "--yes"], 3, "there is no service 'nobody'"),
        (["remove", " ", "--yes"], 2, "SERVICE is empty"),
        (["deploy"], 2, "NAME is missing"),
        (["deploy", "web"], 2, "image is missing: there is no service 'web' yet"),
        (["deploy", "web", "--image", "a b"], 2, "image: 'a b' is not accepted"),
        (["deploy", "web", "--image", "x", "--memory", "5Q"], 2, "memory: '5Q' is not accepted"),
        (["deploy", "web", "--image", "x", "--memory", "0"], 2, "memory: '0' is not accepted"),
        (["deploy", "web", "--image", "x", "--cpu", "two"], 2, "cpu: 'two' is not accepted"),
        (["deploy", "web", "--image", "x", "--port", "99999"], 2, "--port: '99999' is not accepted"),
        (["deploy", "web", "--image", "x", "--env", "DEBUG"], 2, "env: number 1 is not KEY=VALUE"),
        (["deploy", "web", "--image", "x", "--env", "1=2"], 2, "env: name: '1' is not accepted"),
        (["deploy", "web", "--image", "x", "--env-from", "/nowhere"], 2, "/nowhere cannot be read"),
        (["deploy", "web", "--image", "x", "--label", "skypanel.x=1"], 2, "--label: 'skypanel.x' is not accepted"),
        (["deploy", "web", "--image", "x", "--timeout", "soon"], 2, "--timeout: 'soon' is not accepted"),
        (["deploy", "web", "--image", "x", "--endpoint-mode", "dns"], 2, "dns"),
        (["deploy", "web", "--image", "x", "--org", "nobody"], 3, "there is no organization 'nobody'"),
        (["deploy", "-f", "/nowhere.yaml"], 2, "/nowhere.yaml cannot be read"),
        (["adopt", "web", "--all"], 2, "of NAME, --all and --stack more than one is given"),
        (["deploy", "web", "--image", "x"], 5, "/nowhere/docker.sock"),
        (["deploy", "web", "--image", "x", "--dry-run"], 5, "/nowhere/docker.sock"),
        (["adopt"], 5, "/nowhere/docker.sock"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    done = cli("services", *arguments, **AWAY)
    assert (done.returncode, done.stdout) == (code, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: web\nimage: x\nreplica: 3\n", "unknown key 'replica'"),
        ("- web\n", "holds no keys"),
        ("a: [", "line 1, column 5: expected the node content"),
        ("name: web\nname: x\n", "line 2, column 1: the key 'name' stands there already"),
        ("name: web\nenv:\n  A: 1\n  B: 1\n  A: 2\n", "line 5, column 3: the key 'A' stands there already"),
        ("name: a\nimage: x\n  cpu: 1\n", "line 3, column 6: mapping values are not allowed here"),
        ("name: a\nimage: \x01\n", "line 2, column 8: special characters are not allowed"),
        ("name: a\nimage: x\n---\nname: b\nimage: x\ncpu: no\n", "document 2: cpu: False is not accepted"),
        ("name: a\nimage: x\n---\nname: A\nimage: x\n", "document 2: name: 'A' is that of a document before"),
        ("name: a\nimage: x\n---\nname: b\n", "document 2: image is missing"),
        ("name: a\nimage: x\nreplicas: 0\n", "replicas: 0 is not accepted"),
        ("name: a\nimage: x\nreplicas: 2\npool: p\n", "pool: 'p' is not accepted"),
        ("image: x\n", "NAME is missing"),
        ("name: web\n", "image is missing"),
        ("name: web\nimage: x\nports: 80\n", "ports: 80 is not accepted"),
        ("name: web\nimage: x\nenv: [A]\n", "env: a list is not accepted"),
    ],
)
def test_mistakes_in_a_file(cli: Cli, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    done = cli("services", "deploy", "-f", str(file), **AWAY)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert words in error
    assert hint.startswith("hint: ")


def test_a_file_of_variables_is_never_shown(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("# for the database\n\nDB_URL=postgresql://x\nSECRET\n")
    done = cli("services", "deploy", "web", "--image", "x", "--env-from", str(file), **AWAY)
    assert done.returncode == 2
    assert f"{file}, line 4: not KEY=VALUE" in done.stderr
    assert "SECRET" not in done.stderr


def test_a_name_comes_before_the_beginnings_of_ids_however_many(cli: Cli, trio: Fleet) -> None:
    trio.deploy("db", to="w1")
    trio.connection.execute(
        "INSERT INTO container_services (id, organization_id, name, slug)"
        " SELECT ('db' || substr(gen_random_uuid()::text, 3))::uuid, organization_id, 'a' || n, 'a' || n"
        " FROM container_services, generate_series(1, 20) n"
    )
    assert json.loads(cli("services", "show", "db", "-o", "json").stdout)["name"] == "db"


def test_several_organizations_and_none_is_named(cli: Cli, connection: psycopg.Connection) -> None:
    add_organization(connection, "acme")
    add_organization(connection, "zeta")
    done = cli("services", "deploy", "web", "--image", "x", **AWAY)
    assert done.returncode == 2
    assert "there are several organizations: acme, zeta" in done.stderr
    assert "--org" in done.stderr


def test_remove_says_what_it_would_do_and_needs_the_engine(cli: Cli, trio: Fleet) -> None:
    trio.deploy("web", to="w1")
    dry = cli("services", "remove", "web", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "")
    assert "web of default" in dry.stderr
    away = cli("services", "remove", "web", "--yes", **AWAY)
    assert away.returncode == 5
    assert list(trio.services()) == ["web"]


def test_a_dry_run_makes_no_organization(trio: Fleet) -> None:
    assert services.organization(trio.context, None, make=True, dry_run=True).slug == "default"
    assert trio.connection.execute("SELECT count(*) FROM organizations").fetchone() == (0,)


def test_limits_that_are_given_win_over_those_that_the_engine_has(trio: Fleet) -> None:
    trio.deploy("web", to="w1", cores=0.5, memory=256)
    trio.connection.execute("UPDATE container_services SET status = 'deleted', current_deployment_id = NULL")
    [found] = adoption.adoptable(trio.context)
    assert found.limits == Capacity(0.5, 256, 10)
    [given] = adoption.adoptable(trio.context, Capacity(memory_mb=1024))
    assert given.limits == Capacity(0.5, 1024, 10)


def test_services_are_read_from_standard_input(cli: Cli, connection: psycopg.Connection) -> None:
    text = "name: a\nimage: x\n---\nname: b\nimage: x\n---\n"
    done = subprocess.run(
        [sys.executable, "-m", "skyctl", "services", "deploy", "-f", "-"],
        env=clean_environment() | cli.environment | AWAY,
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 5
    assert [line.split(":")[:2] for line in done.stderr.splitlines()] == [["error", " a"], ["error", " b"]]
    assert connection.execute("SELECT count(*) FROM container_services").fetchone() == (0,)
