"""The command line as a person types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import yaml

from skyctl.operations.admin import workers
from skyctl.operations.agents.registration import register
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, clean_environment
from tests.support.helpers import add_worker, registration

pytestmark = pytest.mark.in_process

HEAVY = {
    *("sqlalchemy", "psycopg", "docker", "httpx", "starlette", "uvicorn", "rich", "yaml"),
    *("cryptography", "apprise", "prometheus_client", "psutil", "jwt", "orjson"),
}
VALUES = {"skyctl.domain.cluster", "skyctl.domain.engine", "skyctl.domain.workloads"}
"""Modules of many dataclasses, which take long to make."""


@pytest.fixture
def fleet(connection: psycopg.Connection) -> psycopg.Connection:
    for name, status, cpu in (("alpha", "active", 91.5), ("beta", "offline", 10), ("gamma", "pending", 0)):
        add_worker(
            connection,
            name=name,
            hostname=f"{name}.example.com",
            status=status,
            capacity=json.dumps({"cpuCores": 4, "memoryMb": 8192, "diskGb": 100}),
            current_load=json.dumps({"cpuPercent": cpu, "memoryPercent": 50, "diskPercent": 5, "containerCount": 2}),
        )
    connection.execute("UPDATE container_workers SET last_heartbeat_at = now() - interval '12 s' WHERE name <> 'gamma'")
    connection.execute(
        "INSERT INTO monitor_leases (name, holder, expires_at, last_pass_at) VALUES ('monitor', 't', now(), now())"
    )
    return connection


def test_list_as_a_table(cli: Cli, fleet: psycopg.Connection) -> None:
    assert fleet
    result = cli("workers", "list")
    assert result.returncode == 0
    heading, alpha, beta, gamma, total = result.stdout.splitlines()
    assert heading.split() == ["NAME", "STATUS", "CPU", "MEMORY", "DISK", "CONTAINERS", "HEARTBEAT"]
    assert alpha.split()[:2] == ["alpha", "active"]
    assert "█████████░  92%" in alpha
    assert beta.rstrip().endswith(("s ago", "m ago"))
    assert gamma.split() == ["gamma", "pending", "-", "-", "-", "-", "-"]
    assert total == "3 workers"
    wide = cli("workers", "list", "-o", "wide").stdout
    assert "alpha.example.com" in wide
    assert "8.0 GiB" in wide
    assert "\x1b" not in result.stdout + wide


def test_list_in_every_format(cli: Cli, fleet: psycopg.Connection) -> None:
    assert fleet
    document = json.loads(cli("workers", "list", "-o", "json").stdout)
    assert document["total"] == 3
    assert [worker["name"] for worker in document["workers"]] == ["alpha", "beta", "gamma"]
    assert document["workers"][0]["currentLoad"]["cpuPercent"] == 91.5
    again = yaml.safe_load(cli("workers", "list", "-o", "yaml").stdout)
    assert again == document | {"readAt": again["readAt"]}
    assert cli("workers", "list", "-o", "name").stdout == "alpha\nbeta\ngamma\n"
    page = cli("workers", "list", "--limit", "1", "--offset", "1")
    assert "2 to 2 of 3 workers; more: --offset 2" in page.stdout
    assert json.loads(cli("workers", "list", "--status", "offline", "-o", "json").stdout)["total"] == 1
    assert cli("workers", "list", "--search", "GAMMA", "-o", "name").stdout == "gamma\n"
    assert "No workers" in cli("workers", "list", "--search", "nothing").stdout


def test_show_by_name_id_and_prefix(cli: Cli, fleet: psycopg.Connection) -> None:
    by_name = json.loads(cli("workers", "show", "alpha", "-o", "json").stdout)
    assert by_name["hostname"] == "alpha.example.com"
    for reference in (by_name["id"], by_name["id"][:13]):
        same = json.loads(cli("workers", "show", reference, "-o", "json").stdout)
        assert same | {"readAt": by_name["readAt"]} == by_name
    assert "4 cores, 8.0 GiB memory, 100 GiB disk" in cli("workers", "show", "alpha").stdout
    missing = cli("workers", "show", "nobody")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert missing.stderr == "error: there is no worker 'nobody'\nhint: see `skyctl workers list`\n"
    fleet.execute("UPDATE container_workers SET name = 'alpha'")
    several = cli("workers", "show", "alpha")
    assert several.returncode == 2
    assert "means several workers" in several.stderr


def test_a_worker_that_has_not_joined_has_no_agent_to_upgrade(cli: Cli) -> None:
    assert cli("workers", "install-script", "--name", "web-1", SKYCTL_API_URL="https://m.example.com").returncode == 0
    done = cli("workers", "upgrade", "--all")
    assert (done.returncode, done.stdout) == (4, "web-1: it has not joined yet\n")


def test_cluster_stats(cli: Cli, fleet: psycopg.Connection) -> None:
    assert fleet
    stats = json.loads(cli("cluster", "stats", "-o", "json").stdout)
    assert (stats["totalWorkers"], stats["offlineWorkers"], stats["pendingWorkers"]) == (3, 1, 1)
    assert stats["totalCapacity"] == {"cpuCores": 4, "memoryMb": 8192, "diskGb": 100}
    assert stats["totalLoad"]["cpuPercent"] == 91.5
    text = cli("cluster", "stats").stdout
    for word in ("pending", "active", "unhealthy", "draining", "offline", "4 cores"):
        assert word in text


def test_remove(cli: Cli, fleet: psycopg.Connection) -> None:
    assert "would be removed" in cli("workers", "remove", "alpha", "--dry-run").stderr
    removed = cli("workers", "remove", "alpha", "--yes")
    assert (removed.returncode, removed.stdout) == (0, "alpha removed\n")
    assert cli("workers", "remove", "alpha", "--yes").returncode == 3
    actor = fleet.execute("SELECT actor FROM worker_events WHERE kind = 'removed'").fetchone()
    assert actor
    assert str(actor[0]).startswith("cli:")


def test_drain_and_undrain(cli: Cli, fleet: psycopg.Connection) -> None:
    def drained() -> list[tuple[str, str]]:
        rows = fleet.execute("SELECT name, drain_reason FROM container_workers WHERE drain_requested_at IS NOT NULL")
        return sorted(rows.fetchall())

    missing = cli("workers", "drain", "alpha", "nobody", "--reason", "new disk")
    assert (missing.returncode, missing.stdout, drained()) == (3, "", [])
    dry = cli("workers", "drain", "alpha", "--dry-run")
    assert (dry.returncode, dry.stdout, drained()) == (0, "", [])
    assert "would drain" in dry.stderr
    done = cli("workers", "drain", "alpha", "beta", "alpha", "--reason", "new disk")
    assert (done.returncode, done.stdout) == (0, "alpha drains\nbeta drains\n")
    assert "warning: no monitor leads; the last pass was " in done.stderr
    assert ": nothing is moved until one does. Run `skyctl monitor`." in done.stderr
    assert drained() == [("alpha", "new disk"), ("beta", "new disk")]
    assert "new disk" in cli("workers", "show", "alpha").stdout
    wide = cli("workers", "list", "-o", "wide").stdout.splitlines()
    assert [("new disk" in line) for line in wide] == [False, True, True, False, False]
    back = cli("workers", "undrain", "alpha", "beta")
    assert (back.returncode, back.stdout) == (0, "alpha is back in service\nbeta is back in service\n")
    assert drained() == []
    for options in ([], ["--dry-run"]):
        again = cli("workers", "undrain", "alpha", *options)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "alpha is not drained: nothing to do\n")
    assert cli("workers", "drain", "alpha", "--reason", " ").returncode == 2
    events = fleet.execute(
        "SELECT kind, worker_name, actor LIKE 'cli:%' FROM worker_events ORDER BY kind DESC, worker_name"
    ).fetchall()
    assert events == [
        ("drain_requested", "alpha", True),
        ("drain_requested", "beta", True),
        ("drain_cancelled", "alpha", True),
        ("drain_cancelled", "beta", True),
    ]


def test_install_script(cli: Cli, context: Context) -> None:
    result = cli("workers", "install-script", "--name", "web-1", "--api-url", "https://m.example.com", "-o", "json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert set(document) == {"workerId", "token", "script"}
    assert document["token"] in document["script"]
    assert "https://m.example.com" in document["script"]
    (invited,) = workers.list_workers(context).workers
    assert (invited.name, invited.status) == ("web-1", "pending")
    registered = register(context, document["token"], registration("h")).worker
    assert (str(registered.id), registered.name) == (document["workerId"], "web-1")
    again = cli("workers", "install-script", "--name", "web-1", "--api-url", "https://m.example.com")
    assert (again.returncode, again.stdout) == (4, "")
    plain = cli("workers", "install-script", "--api-url", "http://m.example.com")
    assert plain.returncode == 4
    assert "--insecure" in plain.stderr
    loopback = cli("workers", "install-script")
    assert loopback.stdout.startswith("#!/bin/sh")
    assert "only from this machine" in loopback.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["workers", "lst"], 2, "lst"),
        (["--nonsense"], 2, "--nonsense"),
        (["workers", "list", "--status", "busy"], 2, "busy"),
        (["workers", "list", "--limit", "0"], 2, "--limit"),
        (["workers", "list", "-o", "xml"], 2, "xml"),
        (["workers", "show"], 2, "WORKER"),
        (["--config", "/nowhere.yaml", "workers", "list"], 2, "/nowhere.yaml"),
        (["workers", "install-script", "--name", " "], 2, "name"),
        (["workers", "install-script", "--api-url", "m:1"], 2, "--api-url"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    result = cli(*arguments)
    assert result.returncode == code
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert hint.startswith("hint: ")


def test_no_password_of_the_databases_url_is_shown(cli: Cli) -> None:
    url = "postgresql://u:SECRET1@127.0.0.1:1/x?password=SECRET2&sslpassword=SECRET3&sslmode=prefer"
    failed = cli("--debug", "workers", "list", SKYCTL_DATABASE_URL=url)
    assert failed.returncode == 5
    assert "postgresql://u:***@127.0.0.1:1/x?sslmode=prefer does not answer" in failed.stderr
    assert "SECRET" not in failed.stderr


def test_help_without_a_command(cli: Cli) -> None:
    for arguments in ([], ["workers"], ["db"], ["cluster"]):
        result = cli(*arguments)
        assert result.returncode == 2
        assert "Usage: skyctl" in result.stderr
    assert cli("--version").stdout.startswith("skyctl 0.")


def test_settings_have_a_page_of_their_own(cli: Cli) -> None:
    assert "skyctl help settings" in cli("--help").stdout
    text = " ".join(cli("help", "settings").stdout.split())
    assert "heartbeat_timeout: seconds of silence after which a worker is offline. Default: 120." in text
    for name in ("SKYCTL_DATABASE_URL", "WORKER_HEARTBEAT_TIMEOUT", "DOCKER_SWARM_ADVERTISE_ADDR"):
        assert name in text


@pytest.mark.parametrize(
    "environment",
    [{}, {"_SKYCTL_COMPLETE": "complete_bash", "COMP_WORDS": "skyctl workers l", "COMP_CWORD": "2"}],
    ids=["help", "completion"],
)
def test_starting_up_loads_nothing_heavy(environment: dict[str, str]) -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        "sys.argv = ['skyctl', '--help']\nfrom skyctl.cli.app import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment() | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout
    loaded = set(done.stderr.split())
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
    assert not VALUES & loaded


def test_completing_names_of_workers(cli: Cli, fleet: psycopg.Connection) -> None:
    assert fleet
    asked = {"_SKYCTL_COMPLETE": "complete_bash", "COMP_WORDS": "skyctl workers show al", "COMP_CWORD": "3"}
    assert cli(**asked).stdout.split() == ["alpha"]
    away = cli(**asked, SKYCTL_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert (away.stdout.strip(), away.stderr) == ("", "")


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_closed_pipe_is_no_error(cli: Cli, fleet: psycopg.Connection, output: str) -> None:
    assert fleet
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "skyctl", "workers", "list", "-o", output],
        env=clean_environment() | cli.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_narrow_terminal_keeps_names_statuses_and_figures(cli: Cli, fleet: psycopg.Connection) -> None:
    script = f"stty cols 80; {sys.executable} -m skyctl workers list"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        env=clean_environment() | cli.environment | {"NO_COLOR": "1", "TERM": "xterm"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    for name, status, disk in fleet.execute(
        "SELECT name, status, current_load->>'diskPercent' FROM container_workers WHERE last_heartbeat_at IS NOT NULL"
    ):
        line = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert len(line) <= 80
        assert f" {status} " in line
        assert f"{round(float(disk or 0))}%" in line


def test_names_that_others_wrote_cannot_steer_the_terminal(cli: Cli, fleet: psycopg.Connection) -> None:
    add_worker(fleet, name="ev\x1b[31mil\nline[red]", metadata=json.dumps({"k": "\x1b]0;owned\x07"}))
    for arguments in (["list"], ["list", "-o", "wide"], ["list", "-o", "name"], ["show", "ev\x1b[31mil\nline[red]"]):
        done = cli("workers", *arguments)
        assert "ev\\x1b[31mil\\nline[red]" in done.stdout
        assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("reference", "code"), [("", 2), (" ", 2), ("e", 3)])
def test_a_worker_that_is_not_named(cli: Cli, fleet: psycopg.Connection, reference: str, code: int) -> None:
    before = fleet.execute("SELECT count(*) FROM container_workers").fetchone()
    done = cli("workers", "remove", reference, "--yes")
    assert (done.returncode, done.stdout) == (code, "")
    assert fleet.execute("SELECT count(*) FROM container_workers").fetchone() == before


def test_no_color_and_terminal(cli: Cli, fleet: psycopg.Connection, tmp_path: Path) -> None:
    """On a terminal there are colours; not with NO_COLOR or --no-color."""
    assert fleet

    def on_terminal(*arguments: str, **environment: str) -> str:
        command = f"{sys.executable} -m skyctl {' '.join(arguments)}"
        done = subprocess.run(
            ["script", "-qec", command, str(tmp_path / "typescript")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=clean_environment() | cli.environment | {"TERM": "xterm"} | environment,
        )
        return done.stdout

    assert "\x1b[32mactive" in on_terminal("workers", "list")
    assert "\x1b[32m" not in on_terminal("--no-color", "workers", "list")
    assert "\x1b[32m" not in on_terminal("workers", "list", NO_COLOR="1")


@pytest.mark.parametrize(("redirection", "code"), [(">/dev/full", 1), (">&-", 0), ("| cat", 0)])
def test_odd_places_to_write_to(cli: Cli, fleet: psycopg.Connection, redirection: str, code: int) -> None:
    add_worker(fleet, name="śkÿ")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m skyctl workers list {redirection}"],
        text=True,
        env=clean_environment() | cli.environment | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == code
    assert done.stderr.count("\n") == (2 if code else 0)
    assert ("\\u015bk" in done.stdout) == (redirection == "| cat")
