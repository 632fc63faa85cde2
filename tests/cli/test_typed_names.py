"""Errors name what was typed: the option where it was an option, the argument by its name in the usage, the key where
it was a file or JSON."""

from pathlib import Path

import psycopg
import pytest

from skyctl.documents import http, manifest
from skyctl.domain.errors import ValidationError
from tests.conftest import Cli
from tests.support.helpers import add_worker

pytestmark = pytest.mark.in_process

AWAY = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
LONG = "x" * 1001


@pytest.mark.parametrize("value", ["", " ", "a\nb", LONG])
@pytest.mark.parametrize(
    ("option", "command"),
    [
        ("--reason", "migrations pause"),
        ("--message", "migrations pause"),
        ("--reason", "workers revoke w --yes"),
        ("--reason", "workers drain w"),
        ("--reason", "workers undrain w"),
        ("--reason", "workers cordon w"),
        ("--reason", "workers uncordon w"),
        ("--reason", "alerts silence w --for 1h"),
        ("--name", "workers install-script"),
        ("--name", "workers bundle --output nowhere"),
    ],
)
def test_texts(cli: Cli, connection: psycopg.Connection, option: str, command: str, value: str) -> None:
    add_worker(connection, name="w", status="active")
    assert_named(cli, [*command.split(), option, value], option)


@pytest.mark.parametrize(
    ("option", "command", "value"),
    [
        ("--for", "migrations pause", ""),
        ("--for", "alerts silence w", "soon"),
        ("--overlap", "secrets rotate", "soon"),
        ("--ttl", "workers install-script", ""),
        ("--deadline", "workers drain w", "0s"),
        ("--timeout", "workers drain w --wait", "-1s"),
        ("--region", "workers label w", " "),
        ("--pool", "workers label w", "a\tb"),
        *((option, "services deploy web --image x", "") for option in ("--cpu", "--memory", "--disk", "--port")),
        *((option, "services deploy web --image x", "") for option in ("--region", "--pool", "--spread")),
        *((option, "services deploy web --image x", "=1") for option in ("--env", "--label")),
        *((option, "services deploy web --image x", "none") for option in ("--env", "--label")),
        ("--image", "services deploy web", "a b"),
        *((option, "services adopt", "none") for option in ("--cpu", "--memory", "--disk")),
    ],
)
def test_other_options(cli: Cli, connection: psycopg.Connection, option: str, command: str, value: str) -> None:
    add_worker(connection, name="w", status="active")
    assert_named(cli, [*command.split(), option, value], option)


@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize("value", [" ", "a\nb", "x" * 256, "???", "名前"])
def test_the_name_of_a_service(cli: Cli, value: str) -> None:
    assert_named(cli, ["services", "deploy", value, "--image", "x"], "NAME")


@pytest.mark.usefixtures("connection")
def test_the_command_of_a_service(cli: Cli) -> None:
    assert_named(cli, ["services", "deploy", "web", "--image", "x", "--", "a\nb"], "COMMAND")


@pytest.mark.usefixtures("connection")
def test_the_name_in_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text('name: "???"\nimage: x\n')
    assert_named(cli, ["services", "deploy", "--file", str(file)], "name")


def assert_named(cli: Cli, arguments: list[str], typed: str) -> None:
    """The command ends as one that was typed wrongly, and both lines begin with the option, argument or key."""
    ended = cli(*arguments, **AWAY)
    assert (ended.returncode, ended.stdout) == (2, "")
    error, hint = ended.stderr.splitlines()
    assert error.startswith(f"error: {typed}: ")
    assert hint.startswith(f"hint: {typed}")


def test_of_a_file_the_keys_are_named_and_of_options_beside_it_the_options() -> None:
    fields = {"name": "web", "image": "x", "region": "", "memory": "?"}
    with pytest.raises(ValidationError, match=r"^memory: '\?' is not accepted"):
        manifest.spec(fields, ["region"])
    with pytest.raises(ValidationError, match=r"^--memory: "):
        manifest.spec(fields, ["memory"])
    with pytest.raises(ValidationError, match=r"^--env\.A: its value is not accepted"):
        manifest.spec({"name": "web", "image": "x", "env": {"A": "\0"}}, ["env"])
    with pytest.raises(ValidationError, match=r"^env\.A: its value is not accepted"):
        manifest.spec({"name": "web", "image": "x", "env": {"A": "\0"}})


def test_of_json_the_keys_are_named() -> None:
    with pytest.raises(ValidationError, match=r"^reason: '' is not accepted"):
        http.drain_request(b'{"reason": ""}')
    with pytest.raises(ValidationError, match=r"^name: '' is not accepted"):
        http.script_request({"name": ""})


def test_every_field_of_a_service_has_its_option() -> None:
    assert set(manifest.OPTIONS) == set(manifest.FIELDS)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("skyctl workers show ", ["alpha", "my-worker"]),
        ("skyctl workers show my", ["my-worker"]),
        ("skyctl workers drain my\\ ", []),
        ("skyctl workers drain 'my ", []),
        ('skyctl workers drain "my ', []),
        ("skyctl workers show my\\", ["my-worker"]),
        ("skyctl workers show 'al", ["alpha"]),
        ("skyctl workers drain my\\ own 'his one' al", ["alpha"]),
        ("skyctl workers drain my\\  al", ["alpha"]),
        ("skyctl workers drain -- --force al", ["alpha"]),
        ("skyctl workers\\ ", []),
    ],
)
def test_a_space_within_a_word_ends_none(
    cli: Cli, connection: psycopg.Connection, line: str, offered: list[str]
) -> None:
    """A shell replaces the word at the cursor by what is offered: another worker's name must not be."""
    for name in ("my own", "my-worker", "alpha", "-w"):
        add_worker(connection, name=name, status="active")
    told = cli(_SKYCTL_COMPLETE="complete_lines", _SKYCTL_LINE=line).stdout.split()
    assert [word for word in told if len(word) != 36] == offered, "beside the ids of odd names"


def test_a_name_that_begins_with_a_hyphen_stands_behind_two(cli: Cli, connection: psycopg.Connection) -> None:
    worker = add_worker(connection, name="--force", status="active")
    assert str(worker) in cli("workers", "show", "--", "--force").stdout
    assert cli("workers", "drain", "--", "--force").stdout == "--force drains\n"
    assert (
        f"`skyctl workers drain {worker} --wait`"
        in cli("workers", "drain", str(worker), "--wait", "--timeout", "1s").stderr
    )
