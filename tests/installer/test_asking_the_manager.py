"""How the install script asks its manager: with each of the programs that a host may have, at real TLS sockets."""

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from skyctl.installer import InstallScript, render
from tests.agent.peers import Answer, Manager
from tests.installer.test_script import INVITATION, functions
from tests.support.certificates import authority, server_context
from tests.support.helpers import PATIENCE_SECONDS, need

TOOLS = ("bash", "cat", "date", "grep", "sed", "sh", "sleep", "timeout", "tr")
CLIENTS = ("curl", "wget", "python3", "openssl")
PYTHON = Path(sys.executable).resolve()
YEAR = 365


class Asking:
    """A manager behind TLS, and hosts that have but one program to ask it with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ours, self.theirs = folder, authority(folder, "ours"), authority(folder, "theirs")
        self.manager = Manager(tls=server_context(self.ours))
        self.says("good")

    def says(self, state: str, *, at: float | None = None) -> None:
        text = f"time {int(at or time.time())}\ninvitation {state}\n"
        self.manager.accepting = lambda: Answer(200, text)  # type: ignore[method-assign]

    def script(self, ca: Path | None = None, url: str = "") -> InstallScript:
        return replace(INVITATION, api_url=url or self.manager.url, ca_certificate=(ca or self.ours).read_text())

    def ask(
        self, client: str, script: InstallScript, *before: str, broken: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """`broken`: what clients do that are there as well."""
        programs = self.folder / "-".join((client, *(broken or {})))
        programs.mkdir(exist_ok=True)
        for name, body in (broken or {}).items():
            (programs / name).unlink(missing_ok=True)
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        for tool in (*TOOLS, client):
            if not (programs / tool).exists():
                (programs / tool).symlink_to(PYTHON if tool == "python3" else need(tool))
        # what is not below that folder is this machine's
        program = (
            functions(render(script))
            + "pythons() { echo python3; }; scratch=$1 config_file=$1/none PATH=$2; sleep() { :; }; check_manager\n"
        )
        command = [*before, "/bin/sh", "-s", str(scratch), str(programs)]
        return subprocess.run(command, input=program, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    made = Asking(tmp_path_factory.mktemp("asking"))
    yield made
    made.manager.end()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_manager_of_the_embedded_ca_is_believed(asking: Asking, client: str) -> None:
    asking.says("good")
    done = asking.ask(client, asking.script())
    assert done.returncode == 0, done.stderr
    assert f"ok: manager: {asking.manager.url} answers" in done.stderr
    assert f"ok: invitation: worker {INVITATION.worker_id}" in done.stderr
    assert asking.manager.requests.all()[-1].path.startswith(f"/install/check/{INVITATION.worker_id}/")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_manager_of_another_ca_is_not(asking: Asking, client: str) -> None:
    asking.says("good")
    done = asking.ask(client, asking.script(asking.theirs))
    assert done.returncode == 22, done.stderr
    assert "error W22: " in done.stderr
    assert "its certificate is not trusted (" in done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_of_another_name_is_not(asking: Asking, client: str) -> None:
    asking.says("good")
    done = asking.ask(client, asking.script(url=asking.manager.url.replace("127.0.0.1", "localhost")))
    assert done.returncode == 22, done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_what_does_not_answer_or_answers_no_is_told_apart(asking: Asking, client: str) -> None:
    away = asking.ask(client, asking.script(url="https://127.0.0.1:9"))
    assert away.returncode == 21, away.stderr
    assert "error W21: the manager does not answer at https://127.0.0.1:9 (" in away.stderr
    asking.manager.accepting = lambda: Answer(404, "no")  # type: ignore[method-assign]
    stranger = asking.ask(client, asking.script())
    assert stranger.returncode == 23, stranger.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_a_manager_that_cannot_answer_now_is_no_stranger(asking: Asking, client: str) -> None:
    asking.manager.accepting = lambda: Answer(503, "no database")  # type: ignore[method-assign]
    before = len(asking.manager.requests.all())
    done = asking.ask(client, asking.script())
    assert done.returncode == 21, done.stderr
    assert "error W21: the manager does not answer at " in done.stderr
    assert "503" in done.stderr
    assert len(asking.manager.requests.all()) == before + 3


@pytest.mark.parametrize("client", CLIENTS)
def test_a_manager_below_a_path_is_asked_there(asking: Asking, client: str) -> None:
    asking.says("good")
    done = asking.ask(client, asking.script(url=f"{asking.manager.url}/skyctl"))
    assert done.returncode == 0, done.stderr
    assert asking.manager.requests.all()[-1].path.startswith("/skyctl/install/check/")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("days", [-YEAR, YEAR])
def test_a_clock_a_year_off_is_said_rather_than_a_bad_certificate(asking: Asking, client: str, days: int) -> None:
    asking.says("good")
    when = dt.datetime.now() + dt.timedelta(days=days)
    done = asking.ask(client, asking.script(), need("faketime"), when.strftime("%Y-%m-%d %H:%M:%S"))
    assert done.returncode == 20, done.stderr
    assert "error W20: this host's clock shows " in done.stderr
    assert "hint: set it, for example: timedatectl set-ntp true; or: date -u -s @" in done.stderr


def test_a_bare_host_asks_a_manager_without_tls_through_the_shell(asking: Asking) -> None:
    with Manager() as plain:
        plain.accepting = lambda: Answer(200, f"time {int(time.time())}\ninvitation good\n")  # type: ignore[method-assign]
        done = asking.ask("bash", replace(INVITATION, api_url=plain.url))
    assert done.returncode == 0, done.stderr


def test_a_manager_that_is_away_for_a_moment_is_asked_again(asking: Asking) -> None:
    answers = [
        Answer(0, "close the connection without a word"),
        Answer(200, f"time {int(time.time())}\ninvitation good\n"),
    ]
    with Manager() as plain:
        plain.accepting = lambda: answers.pop(0)  # type: ignore[method-assign]
        done = asking.ask("curl", replace(INVITATION, api_url=plain.url))
    assert done.returncode == 0, done.stderr


LIBRARY_MISSING = "echo 'error while loading shared libraries' >&2; exit 127"
SSL_MISSING = "echo 'ModuleNotFoundError: No module named ssl' >&2; exit 1"
BREAKS = {
    "curl": ["exit 2", "exit 48", "exit 77", LIBRARY_MISSING, "kill -SEGV $$"],
    "wget": ["case $1 in --version) echo GNU Wget ;; *) exit 3 ;; esac", "kill -SEGV $$", LIBRARY_MISSING],
    "python3": [SSL_MISSING, LIBRARY_MISSING, "case $* in *'urlopen'*) exit 1 ;; esac"],
}


@pytest.mark.parametrize(
    ("client", "body", "works"),
    [
        (client, body, works)
        for client, bodies in BREAKS.items()
        for body in bodies
        for works in ("wget", "openssl")
        if client != works
    ],
)
def test_a_client_that_does_not_work_is_not_believed(asking: Asking, client: str, body: str, works: str) -> None:
    asking.says("good")
    done = asking.ask(works, asking.script(), broken={client: body})
    assert done.returncode == 0, done.stderr
    assert f"ok: invitation: worker {INVITATION.worker_id}" in done.stderr


def test_where_no_client_works_it_is_asked_later(asking: Asking) -> None:
    broken = dict.fromkeys(CLIENTS, LIBRARY_MISSING)
    done = asking.ask("bash", asking.script(), broken=broken)
    assert done.returncode == 0, done.stderr
    assert "later: manager: there is no curl, wget, Python or openssl here that works" in done.stderr
