"""A desk elsewhere: logging in to a manager, being known there, and asking it in place of a database."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import psycopg
import pytest
import typer

from skyctl.cli import version
from skyctl.cli.app import program
from skyctl.cli.context import confirm
from skyctl.cli.desk import open_desk
from skyctl.domain.api_tokens import Role
from skyctl.domain.errors import ValidationError
from skyctl.host import contexts
from skyctl.host.certificates import Certificates
from skyctl.operations.admin import api_tokens
from skyctl.operations.shared.context import Context
from tests.conftest import Cli, Process, clean_environment, without_our_settings
from tests.support.answering import answering
from tests.support.helpers import PATIENCE_SECONDS, TESTS, add_worker, eventually, get
from tests.support.in_process import InProcess

Serve = Callable[..., tuple[str, Process]]
OURS = version.ours()
NOBODY_THERE = "http://127.0.0.1:1"
TOKEN = "Token: "  # of which the last letter is shown once there is no echo any more


class Desk(NamedTuple):
    """The command line of a machine without a database, and what lets it in to the manager."""

    run: InProcess
    folder: Path
    token: str
    token_file: Path

    def log_in(self, url: str, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("login", url, "--token-file", str(self.token_file), *options)

    @property
    def kept(self) -> Any:
        """What is in the file."""
        return json.loads((self.folder / "config/skyctl/contexts.json").read_text())

    @property
    def has_kept_nothing(self) -> bool:
        return not (self.folder / "config/skyctl/contexts.json").exists()


@pytest.fixture
def desk(open_folder: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk that holds a token of the manager's, and has not logged in."""
    without_our_settings(monkeypatch)
    folder = open_folder / "desk"
    folder.mkdir()
    token = api_tokens.create(context, TESTS, "anna", Role.VIEWER, None)[1]
    (folder / "token").write_text(f"{token}\n")
    run = InProcess({"XDG_CONFIG_HOME": str(folder / "config"), "SKYCTL_DATA_DIR": str(folder / "none")})
    return Desk(run, folder, token, folder / "token")


@pytest.fixture
def manager(serve: Serve, connection: psycopg.Connection) -> str:
    """The URL of a manager on this machine, with two workers."""
    for name, status in (("web-1", "active"), ("web-2", "offline")):
        add_worker(connection, name=name, status=status)
    return serve()[0]


@pytest.fixture
def guarded(cli: Cli, serve: Serve) -> str:
    """The URL of a manager that speaks TLS by an authority of its own."""
    assert cli("tls", "init").returncode == 0
    return serve("--host", "0.0.0.0")[0].replace("0.0.0.0", "127.0.0.1")


@pytest.fixture
def fingerprint(guarded: str, cli: Cli) -> str:
    """What `tls show` says on the host of that manager."""
    assert guarded
    found: str = json.loads(cli("tls", "show", "-o", "json").stdout)["certificates"][0]["fingerprint"]
    return found


def ask_on_a_terminal(desk: Desk, url: str, prompt: str, answer: str) -> tuple[int, str]:
    """Log in on a terminal, answer what is asked once it is asked; the exit code, and all that was to be seen."""
    line = f"{sys.executable} -m skyctl login {url}"
    line += "" if prompt == TOKEN else f" --token-file {desk.token_file}"
    process = subprocess.Popen(
        ["script", "-qec", line, "/dev/null"],
        env=clean_environment() | desk.run.environment | {"TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    seen = b""
    while prompt.encode() not in seen:
        more = os.read(process.stdout.fileno(), 65_536)
        assert more, seen
        seen += more
    process.stdin.write(f"{answer}\n".encode())
    process.stdin.flush()
    seen += process.stdout.read()
    process.stdin.close()
    process.stdout.close()
    return process.wait(PATIENCE_SECONDS), seen.decode()


def without_times(document: str) -> Any:
    """A document of `-o json` without when it was read."""
    return {name: value for name, value in json.loads(document).items() if name not in ("readAt", "now")}


def test_what_a_desk_lists_is_what_the_manager_lists(
    manager: str, desk: Desk, typed: InProcess, context: Context
) -> None:
    done = desk.log_in(manager, "--name", "prod")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == f"logged in to {manager} as token:anna (viewer); the current context is prod\n"
    for line in ("workers list", "workers show web-1", "workers why web-2"):
        here = typed(*line.split(), "-o", "json")
        with answering(context):
            there = desk.run(*line.split(), "-o", "json", "--context", "prod")
        assert (there.returncode, here.returncode) == (0, 0), there.stderr
        assert without_times(there.stdout) == without_times(here.stdout)
    refused = desk.run("workers", "label", "web-1", "--pool", "gpu")
    assert refused.returncode == 4, "a viewer may not"
    assert "role viewer" in refused.stderr
    assert not (desk.folder / "none").exists(), "no database is made here"


def test_a_token_by_stdin_is_in_no_output_and_no_list_of_processes(manager: str, desk: Desk) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "skyctl", "login", manager, "--token-file", "-"],
        env=clean_environment() | desk.run.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown = Path(f"/proc/{process.pid}/cmdline").read_text() + Path(f"/proc/{process.pid}/environ").read_text()
    said, _ = process.communicate(f"{desk.token}\n", PATIENCE_SECONDS)
    assert process.returncode == 0, said
    assert desk.kept["contexts"][0]["token"] == desk.token
    assert desk.kept["current"] == "127.0.0.1", "the host of the URL"
    for line in ("context list", "context list -o json", "context show", "context show -o yaml", "version -o json"):
        said += desk.run("--debug", *line.split()).stdout
    assert desk.token not in said + shown


def test_a_token_is_asked_for_without_an_echo(manager: str, desk: Desk) -> None:
    code, seen = ask_on_a_terminal(desk, manager, TOKEN, desk.token)
    assert code == 0, seen
    assert "logged in to" in seen
    assert desk.token not in seen
    assert desk.kept["contexts"][0]["token"] == desk.token


def test_there_is_no_way_to_type_a_token_on_the_command_line(manager: str, desk: Desk) -> None:
    refused = desk.run("login", manager)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: --token-file is missing, and there is no terminal to ask on\nhint: give it, - for stdin\n"
    )
    assert desk.run("login", manager, desk.token).returncode == 2
    assert desk.has_kept_nothing


def test_a_wrong_token_is_refused_and_nothing_is_kept(manager: str, desk: Desk) -> None:
    unknown = "skyctl_" + "x" * 43
    for content in (unknown, "", "two words", "ä", "x" * 5000, "a\nb"):
        desk.token_file.write_text(content)
        refused = desk.log_in(manager)
        assert refused.returncode == (4 if content == unknown else 2)
        assert refused.stderr.startswith("error: ")
        assert not content or content not in refused.stderr
        assert desk.has_kept_nothing


def test_a_file_that_is_not_there_is_named(manager: str, desk: Desk) -> None:
    desk.token_file.unlink()
    refused = desk.log_in(manager)
    assert refused.returncode == 2
    assert f"--token-file: {desk.token_file} cannot be read: No such file" in refused.stderr


@pytest.mark.parametrize(
    "url", ["http://m.example.com", "http://10.0.0.1:8642", "m.example.com", "ftp://m", "https://"]
)
def test_an_address_by_which_a_token_would_be_read_is_not_asked(desk: Desk, url: str) -> None:
    refused = desk.log_in(url)
    assert refused.returncode == 2
    error, hint = refused.stderr.splitlines()
    assert error.startswith("error: URL: ")
    assert "https://" in hint
    assert desk.has_kept_nothing


def test_a_manager_with_an_authority_of_its_own_is_known_by_its_fingerprint(
    guarded: str, fingerprint: str, desk: Desk, tmp_path: Path
) -> None:
    unasked = desk.log_in(guarded)
    assert unasked.returncode == 2
    assert fingerprint in unasked.stderr
    assert "--fingerprint is missing, and there is no terminal to ask on" in unasked.stderr
    another = fingerprint.replace(fingerprint[:2], f"{int(fingerprint[:2], 16) ^ 1:02X}")
    for said, code in ((another, 4), ("AA:BB", 2)):
        refused = desk.log_in(guarded, "--fingerprint", said)
        assert (refused.returncode, refused.stdout) == (code, "")
        assert "--fingerprint" in refused.stderr
    assert desk.has_kept_nothing

    assert desk.log_in(guarded, "--fingerprint", fingerprint.replace(":", "").lower()).returncode == 0
    assert json.loads(desk.run("context", "show", "-o", "json").stdout)["authority"] == fingerprint
    assert desk.run("workers", "list").returncode == 0
    again = desk.log_in(guarded)
    assert again.returncode == 0, "what is pinned vouches for it, so nothing is asked"

    other = Certificates(tmp_path / "other")
    other.make(["127.0.0.1"], Certificates(tmp_path / "data").inspect()[0].starts_at)
    kept = desk.kept
    kept["contexts"][0]["authority"] = other.authority_pem()
    (desk.folder / "config/skyctl/contexts.json").write_text(json.dumps(kept))
    untrusted = desk.run("workers", "list")
    assert (untrusted.returncode, untrusted.stdout) == (5, "")
    assert "its certificate is not trusted" in untrusted.stderr
    assert "skyctl login" in untrusted.stderr


@pytest.mark.parametrize(("answer", "code"), [("n", 4), ("y", 0)])
def test_on_a_terminal_the_fingerprint_is_shown_and_asked_for(
    guarded: str, fingerprint: str, desk: Desk, answer: str, code: int
) -> None:
    ended, seen = ask_on_a_terminal(desk, guarded, "Is it the same?", answer)
    assert ended == code, seen
    assert fingerprint in seen
    assert desk.has_kept_nothing is (answer == "n")


def test_without_certificates_there_is_no_authority_to_fetch(manager: str, desk: Desk) -> None:
    refused = desk.log_in(manager, "--fingerprint", "A" * 64)
    assert refused.returncode == 2
    assert "has no certificate" in refused.stderr
    assert get(f"{manager}/ca.pem").status_code == 404


@pytest.fixture
def two(manager: str, desk: Desk) -> Desk:
    """A desk that has logged in as `prod`, which exists, and keeps `gone`, the current one, where nobody answers."""
    assert desk.log_in(manager, "--name", "prod").returncode == 0
    kept = desk.kept
    kept["contexts"].insert(0, kept["contexts"][0] | {"name": "gone", "url": NOBODY_THERE})
    (desk.folder / "config/skyctl/contexts.json").write_text(json.dumps(kept | {"current": "gone"}))
    return desk


def test_the_option_before_the_environment_before_the_database_before_the_current_one(
    two: Desk, environment: dict[str, str]
) -> None:
    def lists(*arguments: str, **more: str) -> bool:
        done = two.run("workers", "list", "-o", "name", *arguments, **more)
        assert (done.returncode, done.stdout) in ((0, "web-1\nweb-2\n"), (5, "")), done.stderr
        return done.returncode == 0

    database = {name: environment[name] for name in ("SKYCTL_DATABASE_URL", "SKYCTL_JWT_SECRET")}
    assert not lists()
    assert lists(**database)
    assert lists("--context", "prod")
    assert lists(SKYCTL_CONTEXT="prod")
    assert lists("--context", "prod", SKYCTL_CONTEXT="gone")
    assert not lists("--context", "gone", SKYCTL_CONTEXT="prod")
    assert not lists("--context", "gone", **database)
    assert not lists(SKYCTL_CONTEXT="gone", **database)
    assert lists("--context", "local", SKYCTL_CONTEXT="gone", **database)
    here = two.run("workers", "list", "--context", "local")
    assert here.returncode == 5
    assert "no database here" in here.stderr
    assert two.run("--context", "prod", "workers", "list").stdout


def test_a_name_that_is_none_is_said(away: Desk) -> None:
    for done in (
        away.run("workers", "list", "--context", "prdo"),
        away.run("context", "use", "prdo"),
        away.run("context", "remove", "prdo", "--yes"),
        away.run("logout", "prdo"),
    ):
        assert (done.returncode, done.stdout) == (3, "")
        error, hint = done.stderr.splitlines()
        assert error.endswith(": there is no context 'prdo'")
        assert hint == "hint: did you mean prod? see `skyctl context list`"
    assert "SKYCTL_CONTEXT: there is no" in away.run("workers", "list", SKYCTL_CONTEXT="x").stderr


def test_they_are_listed_used_shown_renamed_and_removed(two: Desk, manager: str) -> None:
    listed = json.loads(two.run("context", "list", "-o", "json").stdout)
    assert [(each["name"], each["current"]) for each in listed["contexts"]] == [("gone", True), ("prod", False)]
    assert listed["contexts"][1] == {
        "name": "prod",
        "url": manager,
        "current": False,
        "loggedIn": True,
        "authority": None,
    }
    assert two.run("context", "list", "-o", "name").stdout == "gone\nprod\n"
    assert [line.split()[:2] for line in two.run("context", "list").stdout.splitlines()] == [
        ["CURRENT", "NAME"],
        ["*", "gone"],
        ["prod", manager],
    ]
    assert two.run("context", "use", "prod").stderr == "prod is the current context\n"
    assert two.run("workers", "list").returncode == 0
    assert f"URL        {manager}" in two.run("context", "show").stdout
    assert "Name       gone" in two.run("context", "show", "gone").stdout
    assert two.run("context", "rename", "prod", "gone").returncode == 4
    assert two.run("context", "rename", "prod", "local").returncode == 2
    assert two.run("context", "rename", "prod", "live").returncode == 0
    assert two.run("context", "list", "-o", "name").stdout == "gone\nlive\n"
    assert two.kept["current"] == "live"
    assert two.run("context", "use", "local").stderr == "no context is the current one\n"
    assert two.kept["current"] == ""
    assert two.run("context", "show").returncode == 2
    assert two.run("context", "remove", "gone").returncode == 2, "it asks"
    assert two.run("context", "remove", "gone", "--yes").returncode == 0
    assert two.run("context", "list", "-o", "name").stdout == "live\n"


def test_names_are_completed(away: Desk) -> None:
    for words, place in (
        ("context use p", "3"),
        ("logout p", "2"),
        ("--context p", "2"),
        ("workers list --context p", "4"),
    ):
        done = away.run(_SKYCTL_COMPLETE="complete_bash", COMP_WORDS=f"skyctl {words}", COMP_CWORD=place)
        assert done.stdout.split() == ["prod"], words


def test_no_names_of_another_place_are_completed(away: Desk, manager: str, environment: dict[str, str]) -> None:
    assert manager
    asked = {"_SKYCTL_COMPLETE": "complete_bash", "COMP_CWORD": "3"} | environment
    asked["XDG_CONFIG_HOME"] = away.run.environment["XDG_CONFIG_HOME"]
    words = "skyctl workers show web-"
    assert away.run(**asked, COMP_WORDS=words).stdout.split() == ["web-1", "web-2"]
    assert away.run(**asked, COMP_WORDS=words, SKYCTL_CONTEXT="prod").stdout.split() == []


def test_another_manager_takes_no_name_that_is_given(two: Desk, serve: Serve) -> None:
    refused = two.log_in(serve()[0], "--name", "prod")
    assert refused.returncode == 4
    assert "--name: prod is the context of http" in refused.stderr


def test_who_logs_out_leaves_no_token_and_is_told_how_to_return(two: Desk, manager: str) -> None:
    assert two.run("logout", "prod").stderr == "logged out of prod\n"
    assert two.kept["current"] == "gone"
    left = two.run("workers", "list", "--context", "prod")
    assert left.returncode == 2
    assert left.stderr.splitlines()[1] == f"hint: skyctl login {manager}"
    assert two.run("context", "use", "prod").returncode == 2
    assert two.run("logout").returncode == 0
    assert two.kept["current"] == ""
    assert two.token not in json.dumps(two.kept)
    assert two.run("logout").returncode == 2
    assert two.log_in(manager, "--name", "prod").returncode == 0


HERE_ONLY = (
    *("db init", "db check", "serve --port 0", "monitor --once", "up", "tls init", "tls show"),
    *("systemd install --dry-run", "secrets rotate"),
)


@pytest.fixture
def away(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk that knows `prod`, the current one, and `gone`, and nobody answers for either."""
    monkeypatch.setenv("XDG_CONFIG_HOME", desk.run.environment["XDG_CONFIG_HOME"])
    known = [contexts.Context(name, NOBODY_THERE, desk.token) for name in ("gone", "prod")]
    contexts.change(lambda held: held.holding(known[0]).holding(known[1]))
    return desk


def test_what_works_on_the_managers_host_says_so(away: Desk) -> None:
    for line in HERE_ONLY:
        words = line.split()
        command = " ".join(word for word in words if not word.startswith("--") and word != "0")
        for done in (away.run(*words, "--context", "prod"), away.run(*words, SKYCTL_CONTEXT="prod")):
            assert (done.returncode, done.stdout) == (2, "")
            error, hint = done.stderr.splitlines()
            assert error.startswith(f"error: `skyctl {command}` works on the manager's host only; ")
            assert error.endswith(" has chosen the context prod")
            assert "--context local" in hint
    assert not (away.folder / "none").exists()


def test_a_current_context_is_no_database(away: Desk) -> None:
    done = away.run("db", "check")
    assert done.returncode == 2
    assert "`skyctl db check` works on the manager's host only; `skyctl context use` has chosen" in done.stderr
    assert "no database here" in away.run("db", "check", "--context", "local").stderr


@contextmanager
def an_answer(document: object) -> Iterator[str]:
    """A manager of another version, which answers one document."""
    content = json.dumps(document).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_versions_of_both_and_the_way_between_them(two: Desk, manager: str, typed: InProcess) -> None:
    both = two.run("version", "--context", "prod")
    assert both.stdout == f"skyctl {OURS}\nserver {OURS}\nway    the context prod, {manager}\n"
    away = two.run("version")
    assert (away.returncode, away.stderr) == (0, "")
    assert "server unknown: http://127.0.0.1:1 does not answer: Connection refused\n" in away.stdout
    said = json.loads(two.run("version", "-o", "json").stdout)
    assert said["trouble"].startswith("http://127.0.0.1:1 does not answer")
    assert (said["client"], said["server"], said["differ"]) == (OURS, None, False)
    assert (said["way"], said["context"]) == ("context", "gone")
    assert typed("version").stdout == f"skyctl {OURS}\nserver none is asked\nway    the database that is set\n"
    here = two.run("version", "--context", "local")
    assert here.stdout.endswith("way    the embedded database of this host\n")


def test_another_version_is_warned_of_and_marked(desk: Desk) -> None:
    me = {"success": True, "data": {"who": "token:anna", "role": "viewer", "version": "9.9.9"}}
    with an_answer(me) as url:
        done = desk.log_in(url)
        assert f"warning: the manager is of version 9.9.9, this skyctl of {OURS}\n" in done.stderr
        assert "\nserver 9.9.9 (differs)\n" in desk.run("version").stdout
        assert json.loads(desk.run("version", "-o", "json").stdout)["differ"] is True


@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": {"who": "x"}}, {"data": {"version": 1}}, []])
def test_who_is_no_manager_is_said_and_not_logged_in_to(desk: Desk, document: object) -> None:
    with an_answer(document) as url:
        refused = desk.log_in(url)
    assert refused.returncode == 5
    assert "no answer of skyctl" in refused.stderr
    assert desk.has_kept_nothing


def test_a_question_names_the_manager_that_the_answer_is_for(
    two: Desk, manager: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asks it, by the one function that asks."""
    asking = typer.Typer()

    @asking.command()
    def destroy(ctx: typer.Context) -> None:
        with open_desk(ctx):
            confirm("Destroy it?", yes=False)

    def question() -> str:
        with pytest.raises(ValidationError, match="not confirmed") as refused:
            asking([], standalone_mode=False)
        return refused.value.message.partition("to ask on: ")[2]

    for name, value in (two.run.environment | {"SKYCTL_CONTEXT": "prod"}).items():
        monkeypatch.setenv(name, value)
    assert question() == f"prod ({manager}): Destroy it?"
    monkeypatch.delenv("SKYCTL_CONTEXT")
    for name in ("SKYCTL_DATABASE_URL", "SKYCTL_JWT_SECRET"):
        monkeypatch.setenv(name, environment[name])
    assert question() == "Destroy it?"


def test_the_program_has_no_option_for_a_token() -> None:
    command: Any = program()
    own = [parameter for parameter in command.commands["login"].params if not parameter.hidden]
    assert {option for parameter in own for option in parameter.opts} == {
        "url",
        "--token-file",
        "--name",
        "--fingerprint",
    }


@pytest.mark.parametrize(("name", "code"), [("a/b", 3), ("", 2), (" ", 2)])
@pytest.mark.parametrize("line", ["workers show", "services show", "migrations show"])
def test_a_name_that_nothing_has_is_not_found_by_a_context_either(
    desk: Desk, manager: str, cli: Cli, line: str, name: str, code: int
) -> None:
    assert desk.log_in(manager).returncode == 0
    for done in (desk.run(*line.split(), name), cli(*line.split(), name)):
        assert (done.returncode, done.stdout) == (code, "")


def test_the_doctor_of_a_manager_looks_at_the_managers_host(
    desk: Desk, serve: Serve, start: Callable[..., Process], context: Context, cli: Cli
) -> None:
    (desk.folder / "token").write_text(api_tokens.create(context, TESTS, "boss", Role.ADMIN, None)[1])
    url, _ = serve()
    assert desk.log_in(url, "--name", "prod").returncode == 0
    nobody = desk.run("doctor", SKYCTL_CONTEXT="gone")
    assert (nobody.returncode, nobody.stdout) == (3, "")
    monitor = start("monitor", SKYCTL_API_URL=url)
    monitor.until("action=leads")

    def once_it_has_passed() -> Any:
        document = json.loads(desk.run("doctor", "-o", "json").stdout)
        [leads] = [check for check in document["checks"] if check["name"] == "monitor"]
        return document if leads["state"] == "ok" else None

    there = eventually(once_it_has_passed)
    here = json.loads(cli("doctor", "-o", "json", SKYCTL_API_URL=url).stdout)
    assert [check["name"] for check in there["checks"]] == [check["name"] for check in here["checks"]]
    assert there["healthy"] is here["healthy"]
    assert monitor.stop() == 0
