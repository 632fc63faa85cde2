"""Questions before what cannot be undone: asked on a terminal, and never passed over without one."""

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from skyctl.cli.app import program
from skyctl.domain.api_tokens import Role
from skyctl.host import contexts
from skyctl.operations.admin import api_tokens
from tests.conftest import Process
from tests.support.answering import answering
from tests.support.fake_placed import replicated
from tests.support.fleet import Fleet
from tests.support.helpers import TESTS
from tests.support.in_process import InProcess

Serve = Callable[..., tuple[str, Process]]

# Each command that asks, as it gets to its question, in an order in which all of them can be done.
ASKING = (
    "workers confirm w1",
    "workers revoke w2",
    "services adopt web",
    "services rollback a",
    "services release web",
    "services remove a",
    "workers remove w3",
    "migrations resume",
    "secrets end-admin-tokens",
    "tokens revoke desk",
    "context remove prod",
)


HERE = {"context remove prod", "secrets end-admin-tokens"}
"""Those that never go to a manager elsewhere."""


def with_option(group: Any, path: str, option: str) -> Iterator[str]:
    """The commands of a group that have an option, by what is typed."""
    for name, command in getattr(group, "commands", {}).items():
        if any(option in parameter.opts for parameter in command.params):
            yield f"{path}{name}"
        yield from with_option(command, f"{path}{name} ", option)


def test_every_command_with_yes_is_tried_here() -> None:
    asking = {command.rsplit(" ", len(command.split()) - 2)[0] for command in ASKING}
    assert asking == set(with_option(program(), "", "--yes"))


def state(fleet: Fleet) -> list[object]:
    """What any of the commands would change."""
    tables = ("container_workers", "container_services", "worker_events")
    counts = [fleet.connection.execute(f"SELECT count(*), max(xmin::text) FROM {table}").fetchall() for table in tables]
    services = json.dumps([service.id for service in fleet.engine.observe().services.values()], default=str)
    return [counts, services, contexts.read()]


@pytest.fixture
def asked(trio: Fleet, typed: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """The command line over a fleet in which each of them has something to do."""
    trio.deploy("a", to="w1")
    trio.deploy("a", image="app:2")
    trio.engine.place(replicated("web"))
    trio.engine.settle()
    typed.engine = trio.engine
    api_tokens.create(trio.context, TESTS, "desk", Role.VIEWER, None)
    monkeypatch.setenv("XDG_CONFIG_HOME", typed.environment["XDG_CONFIG_HOME"])
    contexts.change(lambda held: held.holding(contexts.Context("prod", "https://m.example.com", "token")))
    return typed


def test_without_a_terminal_nothing_is_done_until_yes_is_given(asked: InProcess, trio: Fleet) -> None:
    for command in ASKING:
        before = state(trio)
        refused = asked(*shlex.split(command))
        assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
        *_, error, hint = refused.stderr.splitlines()
        assert error.startswith("error: not confirmed, since there is no terminal to ask on: ")
        assert hint == "hint: give --yes"
        assert state(trio) == before
        done = asked(*shlex.split(command), "--yes")
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_what_a_manager_elsewhere_is_to_do_is_asked_with_its_name(asked: InProcess, trio: Fleet, serve: Serve) -> None:
    url, _ = serve()
    token = api_tokens.create(trio.context, TESTS, "elsewhere", Role.ADMIN, None)[1]
    contexts.change(lambda held: held.holding(contexts.Context("there", url, token)))
    with answering(trio.context):
        for command in [each for each in ASKING if each not in HERE]:
            words = [*shlex.split(command), "--context", "there"]
            refused = asked(*words)
            assert refused.returncode == 2, refused.stderr
            *_, error, _ = refused.stderr.splitlines()
            question = error.partition("no terminal to ask on: ")[2]
            assert question.startswith(f"there ({url}): "), f"{command}: {error}"
            done = asked(*words, "--yes")
            assert done.returncode == 0, f"{command}: {done.stderr}"
