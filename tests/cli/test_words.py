"""The words of a command line: other tools' verbs, mistakes, help, and global options wherever they stand."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from skyctl.cli import app, foreign
from skyctl.cli.commands import COMMANDS
from skyctl.cli.examples import EXAMPLES
from tests.support.helpers import add_worker
from tests.support.in_process import InProcess

AWAY = {"SKYCTL_DATABASE_URL": "postgresql://127.0.0.1:1/x"}
LIBRARYS = re.compile(
    r"Value error|Input should|unable to parse|Invalid value|unexpected extra|<[a-z]+\[|pydantic|\(s\)"
)


@pytest.fixture
def run() -> InProcess:
    return InProcess(AWAY)


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("get nodes", "workers list"),
        ("get no -o wide", "workers list"),
        ("get pods", "services list --all"),
        ("node ls", "workers list"),
        ("node inspect web-1", "workers show"),
        ("cordon web-1", "workers cordon"),
        ("uncordon web-1", "workers uncordon"),
        ("drain web-1", "workers drain"),
        ("describe node web-1", "workers show"),
        ("logs shop", "services logs"),
        ("ps", "services list"),
        ("service ls", "services list"),
        ("node status", "workers list"),
        ("workers ls", "workers list"),
        ("services rm shop", "services remove"),
        ("--quiet get nodes", "workers list"),
    ],
)
def test_what_other_tools_call_it_leads_to_our_command(run: InProcess, typed: str, ours: str) -> None:
    done = run(*typed.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1] == f"hint: here that is `skyctl {ours}`"


def test_every_command_that_is_named_for_another_tools_exists() -> None:
    for typed, ours in foreign.COMMANDS.items():
        command: Any = app.program()
        for word in ours.split(" --")[0].removesuffix(" settings").split():
            command = command.commands[word]
        assert not hasattr(command, "commands"), ours
        first, *rest = typed.split()
        known: Any = app.program().commands.get(first)
        assert known is None or (rest and rest[0] not in known.commands), f"{typed} is a command of ours"


@pytest.mark.parametrize(
    ("typed", "error", "hint"),
    [
        ("workers lst", "there is no command `skyctl workers lst`", "did you mean `skyctl workers list`?"),
        ("wrkers list", "there is no command `skyctl wrkers`", "did you mean `skyctl workers`?"),
        ("workers list --limit x", "--limit: 'x' is not accepted", "--limit is a whole number from 1 to 100000"),
        ("serve --port 99999", "--port: '99999' is not accepted", "--port is a whole number from 0 to 65535"),
        ("workers list -o xml", "--output: 'xml' is not accepted", "--output is one of table, wide, json, yaml, name"),
        ("policy set acme x", "POLICY: 'x' is not accepted", "POLICY is one of automatic, manual, none"),
        ("services adopt --even-if x", "--even-if: 'x' is not accepted", "--even-if is one of bound, local-data"),
        ("services deploy a --replicas x", "--replicas: 'x' is not accepted", "--replicas is a whole number"),
        ("workers drain", "WORKER is missing", "see `skyctl workers drain --help`"),
        ("workers list x", "x: one word too many", "see `skyctl workers list --help`"),
        ("workers list --limit", "--limit needs a value", "see `skyctl --help`"),
        (
            "workers list --statu x",
            "there is no option --statu",
            "did you mean --status? see `skyctl workers list --help`",
        ),
    ],
)
def test_mistakes_are_said_in_our_words(run: InProcess, typed: str, error: str, hint: str) -> None:
    done = run(*typed.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {error}\nhint: {hint}\n"


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}".strip())


def options(program: Any) -> list[tuple[str, Any]]:
    return [(path, parameter) for path, command in commands(program, "") for parameter in command.params]


def test_no_option_answers_a_wrong_value_with_a_librarys_words(run: InProcess) -> None:
    tried = 0
    for path, option in options(app.program()):
        kind = option.type.name.split()[0]
        if path and option.param_type_name == "option" and not option.is_flag and kind in ("int", "float", "choice"):
            said = run(*path.split(), f"{option.opts[0]}=?").stderr
            assert not LIBRARYS.search(said), said
            tried += "'?' is not accepted" in said
    assert tried > 20


def test_no_help_shows_a_librarys_words(run: InProcess) -> None:
    for path in dict.fromkeys(path for path, _ in options(app.program())):
        said = run("help", *path.split()).stdout
        assert said.startswith(f"Usage: skyctl {path}".rstrip())
        assert not LIBRARYS.search(said), said


def test_help_is_as_wide_as_the_terminal_up_to_what_is_read_with_ease(run: InProcess) -> None:
    for columns, most in ((60, 58), (100, 98), (110, 108), (200, 108)):
        for words in (["help", "settings"], ["--help"], ["workers", "drain", "--help"]):
            lines = run(*words, COLUMNS=str(columns)).stdout.splitlines()
            longest = max(len(line) for line in lines if not line.startswith("    skyctl "))
            assert most - 12 < longest <= most, (columns, words)


def test_what_commands_do_is_said_in_whole_sentences(run: InProcess) -> None:
    for path, command in commands(app.program(), ""):
        if hasattr(command, "commands"):
            assert "..." not in run("help", *path.split(), COLUMNS="60").stdout.partition("Commands:")[2]


def test_the_programs_help_says_what_the_commands_own_does() -> None:
    for name, command in app.program().commands.items():
        assert COMMANDS[name].summary == command.get_short_help_str(1000)


ORDINARY = {"--output", "--yes", "--dry-run", "--org", "--limit", "--offset", "--watch", "--help"}


def test_commands_of_more_than_one_way_have_examples(run: InProcess) -> None:
    ways = {
        path: [option for option in command.params if not (option.hidden or ORDINARY.intersection(option.opts))]
        for path, command in commands(app.program(), "")
        if path and not hasattr(command, "commands")
    }
    assert [path for path, own in ways.items() if len(own) > 2 and path not in EXAMPLES] == []
    assert set(EXAMPLES) <= set(ways)
    for path, found in EXAMPLES.items():
        said = run("help", *path.split()).stdout
        assert "Examples:" in said
        for example in found:
            assert len(example.line) <= 96
            assert example.line.startswith(f"skyctl {path}")
            assert f"# {example.what}\n    {example.line}\n" in said


def test_help_and_version_are_words_and_letters(run: InProcess) -> None:
    assert run("version").stdout.startswith(run("--version").stdout)
    for path in ([], ["workers"], ["workers", "drain"]):
        texts = {run(*words).stdout for words in ([*path, "-h"], [*path, "--help"], ["help", *path])}
        assert len(texts) == 1
    lost = run("help", "workers", "lst")
    assert (lost.returncode, lost.stderr.splitlines()[1]) == (2, "hint: did you mean `skyctl workers list`?")


def test_global_options_stand_anywhere_and_values_are_no_options(
    typed: InProcess, connection: psycopg.Connection
) -> None:
    add_worker(connection, name="w", status="active")
    for line in ("--quiet workers list", "workers --quiet list", "workers list -q"):
        done = typed(*line.split())
        assert (done.returncode, done.stderr) == (0, ""), line
    assert "note: no monitor has run yet" in typed("workers", "list").stderr
    assert typed("workers", "list", "--config", "/nowhere.yaml").returncode == 2
    assert "Traceback" in typed("workers", "show", "--debug", "nobody").stderr
    assert "Traceback" not in typed("workers", "show", "nobody").stderr
    assert "Traceback" not in typed("workers", "list", "--search", "--debug", "--offset", "x").stderr


def test_names_that_are_nearly_right_are_asked_for(typed: InProcess, connection: psycopg.Connection) -> None:
    for name in ("web-1", "database"):
        add_worker(connection, name=name)
    for near in ("wbe-1", "web1", "ewb-1"):
        missing = typed("workers", "show", near)
        assert (missing.returncode, missing.stdout) == (3, "")
        assert missing.stderr.splitlines()[1] == "hint: did you mean web-1? see `skyctl workers list`"
    assert typed("workers", "show", "nobody").stderr.splitlines()[1] == "hint: see `skyctl workers list`"
