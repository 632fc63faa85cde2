"""Where no database is, only `skyctl up` and `skyctl db init` make one: all else says so, and leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import typer

from skyctl.cli.app import program
from skyctl.domain.errors import DatabaseUnavailable
from skyctl.host.postgres import EmbeddedPostgres
from tests.conftest import Cli, clean_environment

MAKES_ONE = {"up", "db init"}
NEEDS_NONE = {
    *("tls init", "tls show", "systemd install", "doctor", "help", "version", "login", "logout"),
    *(f"context {verb}" for verb in ("list", "use", "show", "rename", "remove")),
}
IN_PROCESSES = {"serve", "monitor"}  # which change how the process logs
TYPED = {
    "alerts silence": ["w1", "--for", "1h"],
    "migrations approve": ["--all"],
    "policy set": ["org", "manual"],
    "services deploy": ["web", "--image", "nginx"],
    "services scale": ["web=1"],
    "workers bundle": ["--output", "bundle"],
    "workers label": ["w1", "--pool", "web"],
    "workers upgrade": ["--all"],
}
REMEDIES = ("`skyctl up`", "`skyctl db init`", "SKYCTL_DATABASE_URL", "SKYCTL_DATA_DIR")


@pytest.fixture
def missing(open_folder: Path) -> Path:
    """A data folder that is not there, nor is the one above it."""
    return open_folder / uuid4().hex[:8] / "data"


def commands(group: typer.core.TyperGroup, above: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every command, and what it cannot do without."""
    for name, command in group.commands.items():
        path = f"{above} {name}".strip()
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, path)
        else:
            yield path, TYPED.get(path, ["w1" for parameter in command.params if parameter.required])


def test_no_command_makes_one(missing: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SKYCTL_DATA_DIR", str(missing))
    monkeypatch.chdir(tmp_path)
    asked = {path: typed for path, typed in commands(program()) if path not in MAKES_ONE | NEEDS_NONE | IN_PROCESSES}
    for path, typed in asked.items():
        with pytest.raises(DatabaseUnavailable, match="no database here"):
            program()([*path.split(), *typed], standalone_mode=False)
        assert not missing.parent.exists(), path
    assert len(asked) > 40
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["workers", "list"], ["serve", "--port", "0"], ["monitor", "--once"]], ids=lambda each: each[0]
)
def test_it_is_said_with_what_to_do(missing: Path, arguments: list[str]) -> None:
    refused = Cli({"SKYCTL_DATA_DIR": str(missing)})(*arguments)
    assert (refused.returncode, refused.stdout) == (5, "")
    error, hint = refused.stderr.splitlines()
    assert error.startswith(f"error: no database here: {missing} ")
    assert hint.startswith("hint: ")
    assert [remedy for remedy in REMEDIES if remedy not in hint] == []
    assert not missing.parent.exists()


def test_the_doctor_says_it(missing: Path) -> None:
    examined = Cli({"SKYCTL_DATA_DIR": str(missing)})("doctor", "-o", "json")
    assert examined.returncode == 1
    [check] = [check for check in json.loads(examined.stdout)["checks"] if check["name"] == "database"]
    assert check["state"] == "failed"
    assert check["found"].startswith(f"no database here: {missing} ")
    assert [remedy for remedy in REMEDIES if remedy not in check["remedy"]] == []
    assert not missing.parent.exists()


def test_a_half_made_one_is_none(missing: Path) -> None:
    (missing / "postgres/data.part").mkdir(parents=True)
    assert Cli({"SKYCTL_DATA_DIR": str(missing)})("workers", "list").returncode == 5
    assert sorted(path.name for path in missing.rglob("*")) == ["data.part", "postgres"]


def test_a_server_whose_data_is_gone_is_not_made_anew(missing: Path) -> None:
    server = EmbeddedPostgres(missing)
    with server.running():
        pass
    shutil.rmtree(server.data)
    with pytest.raises(DatabaseUnavailable, match=f"{server.data} is gone"):
        server.revive()
    assert not server.data.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["services", "up of root"])
def test_another_user_is_told_whose_there_is(missing: Path, mode: int) -> None:
    """`/var/lib` is the test's own: with the folder of the services, or with a database that root's `up` has made."""
    script = f"""mount -t tmpfs tmpfs /var/lib && install -d -m {mode:o} /var/lib/skyctl &&
        install -d -m 700 -o daemon /var/lib/skyctl/postgres &&
        exec setpriv --reuid=nobody --regid=nogroup --clear-groups {sys.executable} -I -m skyctl workers list"""
    refused = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env=clean_environment() | {"HOME": str(missing)},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 5, refused.stderr
    error, hint = refused.stderr.splitlines()
    assert error.startswith(f"error: no database here: {missing}/.local/share/skyctl ")
    closed = "/var/lib/skyctl belongs to root" if mode == 0o700 else "/var/lib/skyctl/postgres belongs to daemon"
    assert hint.endswith(f"; {closed}: `sudo skyctl ...`")
    assert not missing.parent.exists()
