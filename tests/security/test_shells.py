"""Names that a shell would run, in real shells on a terminal: TAB offers nothing but plain words, and nothing that a
name holds is run, neither at TAB nor at Enter."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from typer import _completion_shared

from skyctl.cli import completion
from tests.conftest import clean_environment
from tests.support.helpers import add_worker, need
from tests.support.shell import Shell

HOSTILE = [
    "$(touch run-1)",
    "`touch run-2`",
    "; touch run-3 #",
    "'; touch run-4; '",
    '"; touch run-5; "',
    "a\ntouch run-6\n",
    "x:$(touch run-7)",
    "<(touch run-8)",
    "=(touch run-9)",
    "a&touch run-10&",
    "a|touch${IFS}run-11",
    ")); touch run-12; ((",
    "\\'; touch run-13; \\'",
    "a\ttouch run-14",
    "a;touch\u00a0run-15;touch run-15",
    "--force",
    "!!",
    "*",
    "~root",
    "{a,b}",
    "%(touch run-16)s",
    "${(e):-$(touch run-17)}",
    "(touch run-18)",
    "\\$(touch run-19)",
    "\\`touch run-20`",
]
OURS = {"bash": completion.BASH, "zsh": completion.ZSH, "fish": completion.FISH}
# Some have installed the scripts of the library, of which that for zsh evaluates what it is answered.
LIBRARYS = {
    "bash": _completion_shared.COMPLETION_SCRIPT_BASH,
    "zsh": _completion_shared.COMPLETION_SCRIPT_ZSH,
    "fish": _completion_shared.COMPLETION_SCRIPT_FISH,
}
VALUES = {"complete_func": "_skyctl_completion", "prog_name": "skyctl", "autocomplete_var": "_SKYCTL_COMPLETE"}
SCRIPTS = [*OURS.items(), *((shell, script.strip() % VALUES) for shell, script in LIBRARYS.items())]
START = {"zsh": "autoload -Uz compinit; compinit -u; ", "bash": "bind 'TAB:menu-complete'; ", "fish": ""}


@pytest.fixture
def open_shell(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str, str], Shell]]:
    """Open a shell whose completion is a script, in the folder of the test."""
    opened = []

    def begin(name: str, script: str) -> Shell:
        need(name)
        (tmp_path / "script").write_text(script)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        opened.append(Shell(name, tmp_path, clean_environment() | environment | {"PATH": path}))
        opened[0].type(f"{START[name]}source ./script")
        return opened[0]

    yield begin
    for shell in opened:
        shell.close()


@pytest.mark.parametrize(("name", "script"), SCRIPTS, ids=[*OURS, *(f"library-{shell}" for shell in LIBRARYS)])
def test_a_hostile_name_is_completed_by_its_id_and_runs_nothing(
    open_shell: Callable[[str, str], Shell], connection: psycopg.Connection, tmp_path: Path, name: str, script: str
) -> None:
    shell = open_shell(name, script)
    before = {*tmp_path.iterdir(), tmp_path / "data"}
    for hostile in HOSTILE:
        add_worker(connection, name=hostile, status="active")
    shell.type("skyctl workers show \t")
    assert set(tmp_path.iterdir()) - before == set()
    for hostile in (r"\$(touch run-19)", "$(touch run-1)", "; touch run-3 #", "a\ntouch run-6\n", "--force"):
        connection.execute("DELETE FROM container_workers")
        worker = add_worker(connection, name=hostile, status="active")
        shown = shell.type("skyctl workers drain \t")
        assert set(tmp_path.iterdir()) - before == set(), (hostile, shown)
        asked = connection.execute("SELECT id FROM container_workers WHERE drain_requested_at IS NOT NULL").fetchall()
        assert asked == [(worker,)], (hostile, shown)


@pytest.mark.parametrize(("name", "script"), OURS.items(), ids=list(OURS))
def test_plain_names_and_commands_are_completed(
    open_shell: Callable[[str, str], Shell], connection: psycopg.Connection, tmp_path: Path, name: str, script: str
) -> None:
    add_worker(connection, name="alpha.example_1-a", status="active")
    add_worker(connection, name="worker-$(touch run-1)", status="active")
    shell = open_shell(name, script)
    shell.type("skyctl work\t dra\t alp\t --reas\tmoved")
    drained = connection.execute(
        "SELECT name, drain_reason FROM container_workers WHERE drain_requested_at IS NOT NULL"
    )
    assert drained.fetchall() == [("alpha.example_1-a", "moved")]
    (tmp_path / "settings.yaml").write_text("api_url: nonsense\n")
    assert "nonsense" in shell.type("skyctl --config settings.y\t doctor")
    assert not (tmp_path / "run-1").exists()


@pytest.mark.parametrize("name", OURS)
def test_the_program_shows_the_script_of_the_shell_that_asks(
    open_shell: Callable[[str, str], Shell], tmp_path: Path, name: str
) -> None:
    shell = open_shell(name, "")
    shell.type("skyctl --show-completion >shown; skyctl --install-completion >installed")
    assert (tmp_path / "shown").read_text().strip() == OURS[name].strip()
    (installed,) = (
        path
        for path in (".bash_completions/skyctl.sh", ".zfunc/_skyctl", ".config/fish/completions/skyctl.fish")
        if (tmp_path / path).exists()
    )
    assert (tmp_path / installed).read_text().strip() == OURS[name].strip()
